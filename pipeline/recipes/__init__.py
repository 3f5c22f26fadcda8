"""The methods. Each is one straight async function over one unit of work that reads like its paper."""
