"""Tasks that ask for free text, with short composed answers."""

from __future__ import annotations

from random import Random

from embedded import words
from embedded.grammar import Answer, Slots, expand, prose, tidy

# Sentences that go on about a subject, a way of doing something, a public matter, a product.
STORY = (
    "Nobody in {place} had expected {subject}.;Once there was {subject}.;It began with {subject}, [quietly|on a "
    "grey morning].;"
    "Everyone still talks about {subject}.",
    "{name} [watched|listened|waited] for a long time and [said nothing|smiled|took notes].;The {adjective} "
    "{noun} [stood|sat] [close "
    "by|in the corner] as always.;Even the {noun} [stopped|turned round] to look.",
    "In the end [the wind changed|a door opened|somebody laughed], and {name} [went home|understood|was no "
    "longer afraid].;By evening "
    "[all was quiet again|the story had reached {place}|only the {adjective} {noun} was left].",
)
_POEM = (
    "[We sing of|I dream of|Remember] {subject}, [so far|so near|so old],",
    "[the wind|the rain|the light] has [many tales|more days] untold,",
    "a {adjective} {noun} [hums|sighs] at night,",
    "and [dreams|waits] until [the morning|the first] light.",
)
_TIPS = (
    "[Start|Begin] with a [small|simple] plan for {doing}",
    "[Ask|Write to] somebody who knows {doing}",
    "[Set|Put] aside [an hour|some money|a quiet place] [each week|first]",
    "[Check|Note] what [worked|went wrong] and [try again|adjust]",
    "[Buy|Borrow] only what you [really need|use often]",
    "[Rest|Stop] [before you are tired|when it gets dark]",
    "Keep [a list|the receipts|your tools] in one place",
    "Do the [hardest|dullest] part [in the morning|first]",
)
_PRO = (
    "[It|This] saves [money|time] for [families|many people]",
    "[It|This] is [kind to|good for] [children|old people|the air]",
    "It gives [work|ideas] to [small towns|the young]",
)
_CON = (
    "[It|This] costs [more|too much] at first",
    "[It|This] is hard to [control|repair|plan]",
    "Some people would [lose|miss] what they [know|like]",
)
_AD = (
    "[Meet|Discover|Try] the {product} that [thinks along|never lets you down|fits any home].",
    "[Made|Built] for [busy days|long winters|small kitchens], [loved|tested] by {audience}.",
    "[Order|Visit us] today and [smile|save] tomorrow.",
)
_LETTER = (
    "Dear [Sir or Madam|friend|{name}],",
    "I am writing [to you|] {purpose}.",
    "[I hope|We trust] that [this is no trouble|you understand|we can talk soon].",
    "[Kind regards|Yours|With thanks], {name}",
)
_EXTRA = {"name": words.NAMES}


def compose(rng: Random, slots: Slots, lines: tuple[str, ...], between: str = " ") -> str:
    """One sentence from each line of options, joined."""
    filled = dict(slots)
    return between.join(tidy(expand(rng, rng.choice(line.split(";")), filled, _EXTRA)) for line in lines)


def _told(lines: tuple[str, ...], between: str = " ", low: int = 0) -> Answer:
    def answer(rng: Random, slots: Slots) -> tuple[str, str]:
        return "", compose(rng, slots, lines if not low else lines[: rng.randint(low, len(lines))], between)

    return answer


def _count(slots: Slots, most: int) -> int:
    return min(most, {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}.get(slots.get("n", ""), 3))


def _listed(lines: tuple[str, ...]) -> Answer:
    def answer(rng: Random, slots: Slots) -> tuple[str, str]:
        chosen = rng.sample(lines, _count(slots, len(lines)))
        return "", "\n".join(f"{n}. {compose(rng, slots, (line,))}" for n, line in enumerate(chosen, 1))

    return answer


_STORIES = tuple(
    (
        "fairy tale; ghost story; bedtime story; fable with a moral; diary entry; detective story; legend; short "
        "film scene; radio play scene; travel report; newspaper article; opening of a novel; last page of a novel; "
        "letter home; anecdote; monologue; dream; eyewitness report; science fiction scene; campfire story; "
        "obituary; childhood memory; rumour; museum label; stage direction; interview; blog post; comic strip text"
    ).split("; ")
)
_VERSES = tuple(
    (
        "poem; limerick; lullaby; haiku; song verse; ballad; rhyme; ode; birthday verse; chant; nursery rhyme; sonnet"
    ).split("; ")
)
_LENGTHS = (
    "short",
    "very short",
    "three-line",
    "one-paragraph",
    "brief",
    "little",
    "half-page",
    "tiny",
    "longer",
    "",
    "",
)
prose(
    "{write} a {length} {genre} about {subject}.",
    "{write} a {tone} {genre} [on|in which we meet] {subject}.",
    "Tell [me|us|{audience}] a {length} {genre} with {subject} in it.",
    "[Begin|Start|Finish|Continue] a {genre}: {subject}.",
    "What would a {tone} {genre} about {subject} [sound|read|look] like?",
    "Imagine {subject}. {write} a {length} {genre} [about it|].",
    "{write} a {genre} for {audience} [that deals with|about|around] {subject}.",
    "{subject}: [turn|make] this into a {length} {genre}.",
    "[Our|The] {business} wants to [print|read aloud|hang up] a {tone} {genre} about {subject}; {write2} it.",
    "[Describe|Paint in words] {subject} as [if|though] in a {tone} {genre}.",
    answer=_told(STORY, low=2),
    genre=_STORIES,
    length=_LENGTHS,
    write2=("write", "compose", "draft", "invent"),
)
prose(
    "{write} a {length} {verse} about {subject}.",
    "{write} a {tone} {verse} for {audience} about {subject}.",
    "[Rhyme|Sing|Make verses] about {subject} [as|like|in the form of] a {verse}.",
    "Can you rhyme a {length} {verse} on {subject}?",
    "{subject} [deserves|needs|calls for] a {tone} {verse}; {write2} it.",
    "I would love a {verse} with {subject} and a {noun}.",
    answer=_told(_POEM, "\n", low=2),
    verse=_VERSES,
    length=_LENGTHS,
    write2=("write", "compose", "invent"),
)
_ADVICE = tuple(
    (
        "tips; pieces of advice; rules; steps; hints; ideas; warnings; reminders; first steps; tricks; questions to ask"
    ).split("; ")
)
prose(
    "[Give|List|Write|Name|Suggest|Offer] {n} [good|simple|cheap|unusual|practical|] {kind} for {doing}.",
    "What are {n} {kind} for {doing}?",
    "How [should|would] {audience} go about {doing}? [Name|List] {n} {kind}.",
    "I am [thinking of|worried about|bad at|new to|tired of] {doing}. [Give me|I need] {n} {kind}.",
    "{person} [has trouble with|dreams of|knows nothing about] {doing}; [offer|list|write] {n} {kind}.",
    "[Make|Write|Set up] a [checklist|plan|list] of {n} {kind} [for|about] {doing}.",
    "Which {n} [mistakes|errors] do [people|beginners] make when {doing}?",
    "{doing}: [give|name|list] {n} {kind}.",
    "For {audience}, [collect|list|note] {n} {kind} on {doing}.",
    answer=_listed(_TIPS),
    kind=_ADVICE,
)
prose(
    "[Describe|Explain|Outline|Summarise] [how|the way] {audience} could [start|succeed in|enjoy] {doing}.",
    "Why is {doing} [harder|easier|more fun] than it [seems|sounds]?",
    "What does one [need|have to know] for {doing}?",
    "[Encourage|Convince|Advise|Warn] {audience} [about|when it comes to] {doing}.",
    "Is {doing} [worth the trouble|a good idea]? Explain.",
    "Answer {audience} who asks about {doing}.",
    "[Plan|Sketch|Outline] [a day|a week|an afternoon] of {doing}.",
    answer=lambda rng, slots: ("", ". ".join(compose(rng, slots, (line,)) for line in rng.sample(_TIPS, 3)) + "."),
)
prose(
    "[Give|List|Name] {n} [arguments|reasons|points] for {matter}.",
    "What speaks [in favour of|for] {matter}? [List|Name] {n} points.",
    "[Defend|Praise|Support] {matter} with {n} [arguments|reasons] [in front of {audience}|].",
    answer=_listed(_PRO),
)
prose(
    "[Give|List|Name] {n} [arguments|reasons|points] against {matter}.",
    "Which {n} [drawbacks|dangers|costs] [has|comes with] {matter}?",
    "[Criticise|Attack|Question] {matter} with {n} [arguments|points] [before {audience}|].",
    answer=_listed(_CON),
)
prose(
    "[Discuss|Weigh up|Consider|Debate] the [pros and cons|good and bad sides|advantages and drawbacks] of {matter}.",
    "{write} a {tone} [speech|essay|comment|paragraph|letter to the editor|debate opening] about {matter}.",
    "What [do you think of|should a town do about|would {audience} say about] {matter}?",
    "[Is|Are] {matter} [good|bad] for [us all|{audience}]?",
    "How [could|might|will] {matter} change [our lives|the life of {audience}|{place}] [in ten years|some day|]?",
    "Imagine a [world|country|town] without {matter} and [describe|explain] [one day in it|what is different].",
    "Compare {matter} [today and a hundred years ago|in a town and in a village|for the young and for the old].",
    answer=lambda rng, slots: (
        "",
        f"{compose(rng, slots, (rng.choice(_PRO),))}. On the other hand, "
        f"{compose(rng, slots, (rng.choice(_CON),)).lower()}.",
    ),
)
prose(
    "{write} [a|an] [slogan|advertisement|catalogue text|radio spot|product description|sales talk|shop sign] "
    "for {product}.",
    "How would you [sell|present|praise] {product} to {audience}?",
    "[Invent|Find|Suggest] a [selling line|promise|text] for {product}.",
    "A {business} [now sells|gives away|has too many of] {product}; {write2} [the announcement|a {tone} notice|"
    "two lines for the window].",
    answer=_told(_AD, low=1),
    write2=("write", "draft", "compose"),
)
prose(
    "{write} [a|an] {tone} [email|letter|note|message] to {person} {purpose}.",
    "[Phrase|Word] a {tone} message to {person} {purpose}.",
    "I have to write to {person} {purpose}; [help me with|draft|start] the [letter|text].",
    "{person} [is waiting for|deserves|expects] a letter from me {purpose}; what do I write?",
    "How do I tell {person} in a {tone} way, when I write {purpose}?",
    answer=_told(_LETTER, "\n"),
)
_FIRST = ("Golden", "Little", "Silver", "Happy", "Blue", "Green", "Old Town", "Sunny", "Clever", "Morning")
_SECOND = ("Corner", "Fox", "Lantern", "Bridge", "Garden", "Star", "Harbour", "Door", "Feather", "Apple")
prose(
    "[Suggest|Invent|Find|Think up|List] {n} names for a [new|small|family|] {business} [in {place}|for {audience}|].",
    "What could [I|we|{person}] call a {business} [in {place}|with {product}|]? [Name|Give] {n} ideas.",
    "Name {n} [good|funny|elegant] [titles|names] for a [book|film|song|club] about {subject}.",
    answer=lambda rng, slots: (
        "",
        ", ".join(
            f"{a} {b}"
            for a, b in zip(rng.sample(_FIRST, _count(slots, 6)), rng.sample(_SECOND, _count(slots, 6)), strict=True)
        ),
    ),
)
_ABOUT = dict(words.CONCEPTS)
_CONCEPT = tuple(_ABOUT)
prose(
    "[Explain|Describe|Define|Make clear] {concept} [to {audience}|in simple words|in one sentence|briefly].",
    "What is [meant by|] {concept}?",
    "How [would|do] you explain {concept} to {audience}?",
    "What should {audience} know about {concept}?",
    "I [never understood|keep forgetting|must give a talk on] {concept}; [explain|sum up] it [for me|].",
    "{audience} [asks|wonders] what {concept} is. {reply} in [plain|your own] words.",
    "[Teach|Tell] {audience} about {concept}.",
    "{write} a [dictionary entry|caption|memory card|footnote] on {concept}.",
    answer=lambda rng, slots: ("", _ABOUT[slots["concept"]]),
    concept=_CONCEPT,
    reply=("Answer", "Reply", "Respond"),
)
prose(
    "Which [idea|concept|term|thing] is [described|explained|defined] in the text {below}?",
    "[Name|Find] the term for the description {below}.",
    "Give the text {below} a [title|heading].",
    answer=lambda rng, slots: (lambda row: (row[1], row[0].capitalize()))(rng.choice(words.CONCEPTS)),
)


def _scene(rng: Random) -> str:
    return compose(
        rng,
        {},
        (rng.choice(("{name} found {subject}.", "Yesterday {name} dreamt of {subject}.", "We heard of {subject}.")),),
    )


prose(
    "[Continue|Go on with|Add to|Extend] the [story|text|tale|report] {below} [with|by] [one sentence|two sentences].",
    "What happens [next|afterwards] in the [story|scene] {below}?",
    "{write} an ending for the [story|scene|text] {below}.",
    answer=lambda rng, slots: (_scene(rng), compose(rng, {}, STORY[1:])),
)
prose(
    "{write} a title for the [story|text|scene|report] {below}.",
    "[Find|Suggest] a {tone} headline for the [story|text|report] {below}.",
    answer=lambda rng, slots: (
        lambda a, b: (
            tidy(f"{rng.choice(words.NAMES)} met a {a} {b} in {rng.choice(('the city', 'a village'))}."),
            f"The {a} {b}".title(),
        )
    )(expand(rng, "{adjective}", {}, {}), expand(rng, "{noun}", {}, {})),
)
prose(
    "{reply} to the [message|invitation|email] {below} in a {tone} way.",
    "{write} a {tone} answer to the [message|letter|request] {below}.",
    "What would {audience} reply to the [message|email] {below}?",
    answer=lambda rng, slots: (
        lambda day, name: (
            f"Are you free on {day}? {name}",
            rng.choice((f"Yes, {day} is fine, see you then, {name}.", f"Thank you, {name}, but I am away on {day}.")),
        )
    )(rng.choice(words.DAYS), rng.choice(words.NAMES)),
    reply=("Answer", "Reply", "Respond"),
)
_DISHES = (
    "[onion|carrot|leek|potato|cabbage] soup",
    "[apple|plum|cherry|pear] cake",
    "[rice|bean|lentil|noodle] salad",
    "[spinach|mushroom|cheese] omelette",
    "[herb|garlic|walnut] bread",
    "[pumpkin|tomato|fish] stew",
    "[lemon|ginger|mint] biscuits",
)
prose(
    "[Describe|Explain|Write down] [how to|the way to] [make|prepare|cook] {dish} [for {audience}|in {n} steps|].",
    "What do I need for {dish} [for {n} people|]?",
    "{write} a [recipe|menu card text|cooking note] for {dish}.",
    "{person} [wants|is coming] to eat {dish}; how [is it made|do I make it]?",
    "[Plan|Suggest] a [dinner|lunch|party] with {dish} and {product}.",
    answer=_told(
        (
            "[Wash|Chop|Weigh] [everything|all you need] for the {dish}.",
            "[Cook|Stir|Bake] it [slowly|gently] for [ten|twenty|forty] minutes.",
            "[Season|Taste] the {dish} and serve it [warm|with herbs|to {audience}].",
        )
    ),
    dish=_DISHES,
)
_TALKERS = (
    "a {adjective} {noun}",
    "{person}",
    "a [customer|guest] of the {business}",
    "[a|an] [pilot|queen|pirate|clown|ghost|dragon]",
)
prose(
    "{write} a {tone} [dialogue|conversation|quarrel|phone call|argument] between {one} and {two} [about "
    "{matter}|over {doing}|].",
    "What would {one} say to {two} [about {matter}|on the way to {place}|]?",
    "{one} meets {two} in {place}. {write} their [first words|talk].",
    "[Play|Take] the [part|role] of {one} and [complain|explain yourself|apologise] to {two}.",
    answer=_told(
        (
            "A: [Good morning|Hello], [how goes it|what a day]!",
            "B: [I was just thinking of|Do not talk to me about] {matter}.",
            "A: [Then|Well], let us [sit down|go home] first.",
        ),
        "\n",
    ),
    one=_TALKERS,
    two=_TALKERS,
)
_VISITS = (
    "[Paris|Tokyo|Cairo|Lima|Nairobi|Oslo|Madrid|Hanoi|Athens|Rome|Dublin|Lisbon]",
    "{place}",
    "the [mountains|seaside|countryside]",
)
prose(
    "[Plan|Sketch|Suggest|Organise] a [day|weekend|week|morning] [in|at] {where} for {audience}.",
    "What [should|could] {audience} [see|do|eat] in {where}?",
    "[Describe|Praise|Advertise] {where} [to|for] {audience}.",
    "I have {n} hours in {where} [with {person}|]; what [now|do you suggest]?",
    "{write} a {tone} [postcard|travel diary|review] from {where}.",
    answer=_told(
        (
            "[Start|Begin] with a walk [through|around] {where}.",
            "[Have lunch|Rest] at a {business}.",
            "[In the evening|Later], [listen to music|watch the sun go down|write a postcard].",
        )
    ),
    where=_VISITS,
)
prose(
    "[Write|Ask|Prepare|Think of] {n} [questions|quiz questions|interview questions] [about|on] [{matter}|"
    "{concept}|{doing}].",
    "Which {n} questions would {audience} ask [about|on] [{matter}|{concept}|{doing}]?",
    answer=_listed(
        (
            "[Who|What] [started|invented] it?",
            "[When|Where] does one [meet|see] it?",
            "What does it cost?",
            "Whom does it help?",
            "Why do people [care|argue] about it?",
            "What comes [next|after it]?",
        )
    ),
    concept=_CONCEPT,
)
prose(
    "[What is the difference between|Compare|How do you tell apart] {a} and {b} [for {audience}|]?",
    "Which is [better|more useful] [for {audience}|in {place}|], {a} or {b}?",
    "{person} must choose between {a} and {b}; [advise|help].",
    answer=_told(
        (
            "{a} [is|are] [lighter|cheaper|more common], while {b} [lasts|last] longer.",
            "[For most people|In a hurry], {a} will do.",
        )
    ),
    a=tuple(w for kind in ("vehicle", "instrument", "garment", "drink") for w in words.CATEGORIES[kind]),
    b=tuple(w for kind in ("tool", "furniture", "fruit", "spice") for w in words.CATEGORIES[kind]),
)
