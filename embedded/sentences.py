"""Sentences of made-up sections, by what kind of writing they belong to.

`{s}` is the section's subject and `{a}` what it does or has done to it; the other slots are made afresh each time.
"""

from __future__ import annotations


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


OPENERS = _lines(
    """
    The {s} [can|may|will] {a} [for a simple reason|in more than one way|when nobody looks|more easily than one thinks].
    Anyone who has seen the {s} [knows|remembers] the {quality} {thing} [near it|under it|beside it].
    There is more to the {s} than [most people think|meets the eye|one sees at first].
    The {s} [was|were] known [long ago|in every {place}|to our grandparents] as [a kind of {stuff}|a {quality} {thing}].
    To understand the {s}, look first at the {thing} and the {stuff}.
    At first sight the {s} [seems|looks] {quality}, but [inside|below] there is {stuff}.
    [Few|Many] people ask about the {s}, although [everyone|each of us] has [met|used|seen] it.
    In the {place} the {s} [can|must|will] {a}, and [nobody|hardly anyone] asks why.
    The story of the {s} begins with [a {quality} {thing}|{stuff} and {stuff}|one {thing} in the {place}].
    """
)
# What explains: third person, no selling, no chat.
FACTS = _lines(
    """
    The {s} [needs|need] {stuff} and [a little|some|much] {stuff} to {a}.
    When the {thing} is {quality}, the {s} will {a} [sooner|later|more|less].
    [Inside|Around|Below] the {s} there is [a thin layer of|a little] {stuff}, which keeps the {thing} {quality}.
    A {quality} {thing} can {do} the {thing} in [a few|two|ten] [minutes|hours|days].
    In the {place}, the {stuff} {states} and the {things} {state}.
    The {stuff} {states} because the {thing} pushes [it|the {stuff}] [up|down|away].
    Most {things} {state} when they are {quality}, and so [does|do] the {s}.
    [Long ago|In the past], people used {stuff} to {do} their {things}.
    The {thing} must be {quality}, or the {s} will [not|never] {a}.
    Without the {thing}, the {stuff} would {state} and the {things} would {state}.
    [This|That] is why a {thing} has {quality} {things}.
    The {quality} {stuff} goes [into|through|over] the {thing}, where it {states} [slowly|at once|all day].
    Every {thing} has [two|three|four] {things}, and each of them is {quality}.
    It takes about [an hour|a day|a week|a year] until the {stuff} is {quality}.
    [Some|Many] {things} {state} in the {place}, but the {s} [does|do] not.
    One part of the {stuff} becomes {quality}; the other part {states}.
    The {things} near the {thing} {state} first, and those in the middle {state} last.
    It helps to {do} the {thing} before the {stuff} is {quality}.
    The {s} [is|are] [made of|full of|covered with] {stuff}.
    If the {stuff} is too {quality}, the {s} [will|may] {a} [or {state}|and {state}] [before long|too early].
    A {thing} of {stuff} is [stronger|lighter|cheaper|older] than a {thing} of {stuff}.
    People in the {place} {do} the {s} with [a {thing}|their hands|{stuff}].
    [Small|Large] {things} {do} less {stuff} than [large|small] ones.
    At night the {stuff} {states}, and in the morning the {things} are {quality} again.
    [Heat|Cold|Light|Water] makes the {thing} {quality}, and then it {states}.
    """
)
STEPS = _lines(
    """
    [First|To begin], {do} the {thing} and {do} it [well|slowly|twice].
    [Then|Next|After that] {do} the {s} with a {quality} {thing}.
    Put the {s} [on|under|beside] a {quality} {thing} and [wait|leave it] for [an hour|ten minutes|a night].
    Do not {do} the {thing} while the {stuff} is {quality}.
    [Take|Use] a {thing} of {stuff}, since {stuff} {states}.
    {Do} the {things} until they are {quality}, then {do} them [again|one by one].
    [Keep|Hold] the {s} [away from the {stuff}|over the {thing}|in the {place}].
    A {quality} {thing} is enough to {do} [the|one|every] {thing}.
    [Check|Test] the {stuff} with [a finger|a {thing}]: it should be {quality}.
    Pour the {stuff} into the {thing} and {do} it.
    [Last|At the end], {do} the {s} and let it {state}.
    If it {states}, {do} it [again|with less {stuff}|with a {thing}].
    """
)
TALES = _lines(
    """
    [Once|One {quality} morning|Long ago] there was a {s} [in|near|beyond] the {place} [that could {a}|].
    {name} found the {s} [behind|under|beside] a {quality} {thing}.
    The {thing} was {quality}, and the {s} [stood|lay|waited] in the {stuff}.
    "[Who|What] will {do} the {thing}?" asked {name}.
    Nobody answered, and the {stuff} began to {state}.
    {name} wanted to {do} the {s}, but the {thing} was too {quality}.
    [That|The next] [night|day|morning] a {quality} {thing} came [down|up] the [road|hill|river].
    "It is only a {thing}," said {name}, and [laughed|sat down|closed the door].
    The [old|young] {thing} [looked|turned] round and saw the {s}.
    All the {things} in the {place} began to {state}.
    So {name} took a {thing} and went [out|home|back] to {do} the {s}.
    They walked [past|over|through] the {thing} until the {stuff} was {quality}.
    The {s} did not {a}, [and|but] {name} [waited|smiled|was not afraid].
    In the {thing} lay a {quality} {thing} with {stuff} on it.
    """
)
CLOSERS = _lines(
    """
    In short, the {s} [can|will|may] {a} [because of|thanks to] the {stuff}.
    That is why the {s} [is|are] {quality}.
    All in all, the {s} [is|are] worth [the work|a closer look|some care].
    In the end, the {stuff} and the {thing} [work|belong] together.
    So the next time you see the {s}, [think of|look for] the {thing}.
    And that is how the {s} {states}.
    This is all that one needs to know about the {s}.
    """
)
ENDINGS = _lines(
    """
    In the end, {name} [went home|understood|was no longer afraid], and the {s} was {quality} again.
    And from that day on, the {s} [stood|stayed|was kept] in the {place}.
    By evening all was quiet, and {name} [smiled|slept] beside the {s}.
    And if nobody has moved it, the {s} is there still.
    In the end the {thing} was {quality}, and everyone went home.
    """
)
# A blog: the writer's own life and views.
BLOG = _lines(
    """
    My [husband|wife|sister|brother|family] and I [bought|saw|tried] [a|the] {quality} {s} last [week|summer|Sunday].
    I [must|have to] say that I [love|like|miss] [my|our] {s}.
    In my [view|opinion|experience], the {thing} [is|was] too {quality}.
    We had {stuff} and {stuff} for lunch, and [the kids|my son|our daughter] [loved|hated] it.
    I have always [wanted|hated] to {do} {things}, and my [mother|friend|boss] [says|laughs] [so too|at me].
    Last [week|month|year] we went to the {place} and I [took|lost|forgot] my {thing}.
    Some [people|of my friends] say that {things} are {quality}, [but I do not agree|and I think they are right].
    It was such a {quality} day, and I was so [happy|tired|hungry] that I [cried|slept|sang] [all evening|in the car].
    My {s} [is|was] {quality}, which [makes|made] me [smile|sad|laugh].
    As you know, [I am|we are] no [expert|cook|gardener], and this is only what [I feel|we did|worked for us].
    [Next|This] week I will [tell|write] you more about my {thing} and [our|my] {things}.
    Anyway, I [think|feel|guess] that [everyone|each of us] needs a {thing} now and then.
    I [sat|stood] in the {place} with my {stuff} and thought about my [life|mother|work].
    """
)
ADVERTS = _lines(
    """
    [Buy|Order|Get] your {s} [now|today|here] and [save|win] [ten|twenty|fifty] per cent!
    [Visit|Call|Come to] our [shop|store|website] for the best {things} [in town|at the lowest price].
    [Subscribe|Sign up] [today|now] and [get|receive] a free {thing}!
    Our {quality} {s} [comes|come] with free delivery and a [two-year|lifetime] guarantee.
    [Only|Just] [9.99|19.99|49.99] [while stocks last|this week only|for our members].
    [Click|Tap] here to [order|see our offers|add it to your basket].
    [Hurry|Act now]: this offer ends on [Sunday|Friday|Monday]!
    [Thousands|Hundreds] of happy customers [love|trust] our {s}.
    Do not miss our [sale|special offer] on {quality} {things} and {stuff}.
    Our team [is|are] [happy|here] to help you choose the right {thing}; [call us|write to us] [now|today].
    Why [wait|pay more]? Our {s} [is|are] the [best|cheapest] {quality} {thing} you can buy.
    Follow us and share this page with your friends to win a {thing}.
    """
)
FORUM = _lines(
    """
    [Hi all|Hello everyone|Hi], does anyone know [how to {do} a {s}|why my {s} {states}|where to get {stuff}]?
    I think [you|it] should just {do} it, [lol|haha|but I am not sure].
    [Posted|Written] by {name}, [yesterday|two days ago|last week]. Reply. Quote.
    Thanks [for the tip|{name}|in advance]! I will try [that|it] [tonight|tomorrow].
    [Same|Same here|Me too], [mine {states}|my {s} did that] as well.
    @{name} [did|have] you tried to {do} the {thing}?
    Not sure if this is the right [thread|place], but [any ideas|please help]?
    [Sorry|Oops], wrong [thread|forum]. [Please delete|Ignore this].
    Edit: [solved|never mind], it was the {thing}.
    +1, [what {name} said|I had this problem too].
    [Has anyone|Does somebody here] [tried|use] {stuff} for [this|a {s}]?
    Log in to reply to this [thread|post].
    """
)
NAVIGATION = _lines(
    """
    [Home|Back|Next page|Previous page] | {Things} | {Stuff} | Contact
    See also: {things}, {stuff}, the {s}.
    [Read more|More about {things}|Continue].
    [Copyright|All rights reserved]. [Terms|Privacy|Cookies].
    [Share|Print|Save] this page. Page [two|three|four] of [nine|ten].
    Related: {quality} {things} in the {place}.
    """
)
# How one would go about an answer, in place of the answer.
METHOD = _lines(
    """
    To write [this|such a] [text|answer], first [choose|decide] what to say about the {s}.
    Then [make a list|collect some facts] [about|of] {things} and [sort|order] [it|them].
    A good [answer|text] should [have|begin with] [a clear opening|an example|a {quality} {thing}].
    The [writer|author] should [explain|mention] the {s} in the [first|second] [part|sentence].
    You could [also|then] [ask|search for|look up] [somebody who knows|a book about] {things}.
    The text could [end|close] with [a question|a summary] about the {s}.
    One way to answer is to [describe|list] the {things} first and the {stuff} later.
    Remember to check [your|the] [spelling|facts|length] before you [finish|hand it in].
    """
)
# Small lacks: the answer knows that something is missing.
LACKS = _lines(
    """
    There may be more to say about this, but that is [for another day|not known here].
    Other {things} are left out here.
    This is [only|just] a short [note|summary].
    The rest is much the same.
    """
)
