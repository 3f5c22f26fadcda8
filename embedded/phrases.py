"""The shared slots: phrases that any task may use, by the name of the slot.

A phrase may hold choices in square brackets, split by bars, and other slots in braces; `grammar.expand` resolves them.
"""

from __future__ import annotations


def _options(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(";"))


SLOTS: dict[str, tuple[str, ...]] = {
    # Asking for the thing to work on.
    "below": _options("below; given; that follows; in the input; provided; I paste here; shown next; you receive"),
    "find": _options("Find; Identify; Pick out; Locate; Spot; Name; Work out; Tell me; Give; Point out; Write down"),
    "say": _options(
        "Decide; Say; Tell me; Determine; Judge; Work out; Check; State; Find out; Assess; Establish; Make up your mind"
    ),
    "change": _options("Rewrite; Change; Convert; Turn; Transform; Recast"),
    "compute": _options("Calculate; Work out; Compute; Find; Determine; Figure out; Give; Tell me"),
    "write": _options("Write; Compose; Draft; Create; Produce; Prepare; Come up with; Put together; Think up; Pen"),
    "sentence": _options("sentence; line; statement; phrase; remark; message; headline; note"),
    "n": _options("two; three; four; five; six"),
    # The world.
    "adjective": _options(
        "forgotten; rusty; enormous; shy; talkative; stubborn; golden; haunted; clumsy; ancient; wooden; "
        "curious; stolen; "
        "invisible; noisy; lonely; frozen; cheerful; broken; travelling; sleepy; famous; secret; borrowed; "
        "patient; tiny; "
        "crooked; brand-new; unfinished; homesick"
    ),
    "noun": _options(
        "lighthouse; piano; bicycle; suitcase; umbrella; clock; bridge; kite; teapot; mirror; lantern; violin; "
        "rowing boat; "
        "typewriter; robot; scarecrow; elephant; fox; postman; tailor; ferry captain; librarian; astronaut; beekeeper; "
        "clockmaker; night watchman; street musician; gardener; mountain guide; baker; detective; old sailor; "
        "young inventor; "
        "snowman; tortoise; weather vane; vending machine; submarine; chess player; puppet"
    ),
    "place": _options(
        "a railway station; a desert town; the last house of a village; a flooded library; an island with one "
        "tree; a busy "
        "market; the attic of a school; a mountain hut; an empty theatre; a harbour at dawn; the back of a "
        "bakery; a city "
        "without cars; a hospital at night; the bottom of a lake; a factory that never stops; a glass tower; an "
        "orchard in "
        "autumn; a crowded lift; a valley full of fog; a museum after closing time; a small airport; a botanical "
        "garden; a "
        "camp site in the rain; the kitchen of a hotel; a ship in the ice"
    ),
    "subject": _options(
        "[a|the|some] {adjective} {noun} in {place}; [a|the] {noun} who [lost the way home|could not sleep|"
        "wanted to sing|told "
        "no lies|counted the stars|never said goodbye|hated Mondays|kept every letter|was afraid of water]; the "
        "first [snow|"
        "rain|warm day|frost|thunderstorm] of the year; {place}; [two|three] {adjective} friends [on a journey|"
        "at sea|in "
        "{place}|after an argument]; a [letter|parcel|phone call|telegram] that came [too late|by mistake|from "
        "{place}]; "
        "the day [the lights|the buses|all the clocks|the birds] stopped; [a|the] {adjective} {noun}"
    ),
    "matter": _options(
        "[solar|wind|tidal] power; school uniforms; working from home; cheap flights; public libraries; city "
        "bees; night trains; "
        "robots in hospitals; plastic bags; free museums; long meetings; learning Latin; tall buildings; "
        "electric scooters; "
        "keeping cats indoors; small farms; paper books; online exams; four-day weeks; street markets; early "
        "school hours; "
        "zoos; homework; fast fashion; space travel; tap water; second-hand clothes; noise in cities; the price "
        "of bread; "
        "volunteer fire brigades; village shops; tourist taxes; shared cars; school gardens; video games; cash money"
    ),
    "doing": _options(
        "[repairing|painting|cleaning|moving|buying|selling] [an old wooden chair|a garden fence|a used car|a "
        "leaking tap|a "
        "bicycle|a stone wall|a winter coat|a kitchen cupboard|a tent|a piano]; growing [tomatoes|beans|herbs|"
        "roses|mushrooms] "
        "[on a balcony|in poor soil|without much sun|in pots]; learning [the guitar|Spanish|to swim|to juggle|"
        "first aid|to "
        "type fast|chess|to bake bread] [as an adult|in one summer|without a teacher|with little time]; saving "
        "[money|water|"
        "electricity|time|petrol] [at home|as a student|in a large family|at work]; planning a [wedding|school "
        "trip|family "
        "reunion|picnic|charity run|surprise party|concert] [for forty people|in winter|at short notice|on a "
        "small budget]; "
        "[training|feeding|walking|calming] a [puppy|nervous dog|parrot|young horse|kitten]; [cooking|packing "
        "lunch|shopping] "
        "for [one person|a vegetarian|ten guests|picky children|a week of hiking]; [sleeping well|staying calm|making "
        "friends|finding a job|keeping fit] [after a move|while travelling|in a noisy street|during exams|past sixty]; "
        "[speaking|asking a question|telling a joke|giving bad news] in front of [a class|strangers|the whole "
        "office|a camera]"
    ),
    "product": _options(
        "[folding|waterproof|silent|solar|pocket-sized|wooden] [kettle|lamp|tent|toothbrush|bicycle|alarm clock|radio|"
        "umbrella|backpack|keyboard|desk|camera|notebook|fan|heater]; [herbal|iced|smoked] tea; a [language|running|"
        "gardening|cooking|sleep] app; handmade [soap|candles|socks|chocolate|jam|toys]"
    ),
    "business": _options(
        "[bakery|barber shop|bookshop|flower stall|bicycle workshop|tea room|dance school|dog hotel|toy shop|law "
        "office|fish "
        "restaurant|tailor|yoga studio|print shop|farm shop|language school|car wash|brewery]"
    ),
    "person": _options(
        "[a|my] [teacher|neighbour|landlord|manager|cousin|dentist|colleague|grandmother|coach|friend|customer|"
        "supplier|"
        "flatmate|new colleague|former boss|bus driver|librarian|mayor]"
    ),
    "purpose": _options(
        "[to say sorry for|to ask about|to complain about|to thank them for|to remind them of] [a late delivery|"
        "a broken "
        "window|the noise on Sunday|a lost key|an unpaid bill|last week's dinner|a cancelled meeting|the missing "
        "form|a kind "
        "favour|the new timetable]; to [invite them to|turn down] [a garden party|a job interview|a school "
        "concert|a weekend "
        "by the sea|a committee|a free trial]; to [ask for|offer|postpone] [a refund|a day off|a pay rise|an "
        "appointment|a "
        "lift to the station|a letter of reference|more time]"
    ),
    "audience": _options(
        "[a|an] [ten-year-old|beginner|tired nurse|busy manager|new neighbour|grandparent|first-year student|"
        "tourist|shy "
        "teenager|retired engineer|visitor from abroad|sceptical friend|small club|curious child|farmer|taxi driver]; "
        "[people|readers|listeners] who [know nothing about it|have no time|dislike long texts|live abroad|are "
        "still at "
        "school|have seen it all before|speak little English]"
    ),
    "tone": _options(
        "friendly; formal; cheerful; dry; warm; dramatic; calm; playful; serious; old-fashioned; hopeful; "
        "gloomy; polite; "
        "enthusiastic; matter-of-fact; tender; ironic; encouraging"
    ),
    "item_of_work": _options(
        "[a quiz|a newsletter|a school project|a speech|a leaflet|a radio show|a wall poster|a training course|a club "
        "meeting|a birthday card|a blog|a handbook|a board game|a lesson|a report|a local newspaper]"
    ),
}

# What may come before a task, as a sentence of its own.
OPENINGS = _options(
    "I am [preparing|working on|finishing] {item_of_work} for {audience}.; My [sister|brother|uncle|boss|teacher|"
    "daughter|"
    "neighbour] [asked me for help|needs an answer|wants to know this|set me this puzzle] [today|before Friday|"
    "yesterday|for "
    "{item_of_work}|again].; You are [a|an] [experienced|patient|strict|cheerful|famous] [editor|teacher|clerk|coach|"
    "assistant|scientist|tutor|secretary|journalist|accountant|quiz master].; Here is [a task|an exercise|a "
    "small job|a "
    "challenge|some work] for [you|a rainy day|a careful reader|{audience}].; Imagine that you work in [a|an] "
    "{business}.; "
    "[Our|The] {business} [is busy today|opens next week|has a new owner|needs this soon].; I [run|manage|own|"
    "work for] a "
    "small {business} and [need help|am short of time|have a question|want to get this right].; Suppose you are "
    "helping "
    "{audience} with {item_of_work}.; We are [stuck on|nearly done with|just starting] {item_of_work} [and need "
    "one more "
    "thing|and would like your help|here at the {business}].; This is for {item_of_work} [by|for|about] a {business}.; "
    "Let us practise together.; [Time|Ready] for [a puzzle|an exercise|a warm-up|homework].; Do this [slowly|carefully|"
    "step by step|in your head] and check [the result|your work|each part] [twice|at the end|before you answer]."
)

# What may come after a task with one exact answer.
EXACT_ENDINGS = _options(
    "[Give|Return|Write|Show] [only|just|nothing but] the [answer|result|final answer] [, please|and no "
    "explanation|on one "
    "line|with no extra words|and stop there|].; Do not [explain your steps|add any comment|repeat the question|"
    "show the "
    "working].; [Answer|Reply|Respond] [briefly|in a few words|without any explanation|as shortly as you can|"
    "with the result "
    "alone].; [It|The result|The answer] [is for|will appear in|goes into] {item_of_work} [for {audience}|about "
    "{matter}|].; "
    "[I|We] [need it|will use it|want to include it] [for|in] {item_of_work} [at the {business}|for {audience}|about "
    "{matter}|].; [Ignore|Leave out] [everything else|capital letters|any notes|what is not needed].; If [unsure|"
    "in doubt|"
    "there are several], [take the first one|choose the simplest|go with your best guess|pick one].; Keep the "
    "[reply|answer] "
    "[short|to one line|plain|free of decoration].; [Be|Stay] [exact|careful|precise]: {audience} will [check|"
    "read|use] "
    "[it|this|your answer]."
)

# What may come after a task that asks for one label.
LABEL_ENDINGS = _options(
    "[Answer|Reply|Respond] with [one|a single] [word|label] [only|and nothing more|, please|].; Choose [one of|"
    "between] "
    "{labels}.; [Use|Pick|Give] one of these [labels|answers|options]: {labels}.; [The possible|Allowed|Valid] "
    "[answers|"
    "labels|options] are {labels}.; [Possible|Accepted] outputs: {labels}.; Your answer must be {labels}.; Do "
    "not [explain "
    "your choice|give reasons|add anything].; [The labels|Your labels|These labels] [will be used|are needed] [for|in] "
    "{item_of_work} [at a {business}|about {matter}|]."
)

# What may come after a task that asks for free text.
PROSE_ENDINGS = _options(
    "[Keep it|Stay] [under|below] [twenty|thirty|forty|fifty|eighty|a hundred] words.; [Use|Keep to|Choose] a "
    "{tone} [tone|"
    "voice|style].; [Write|Make] it [so that|in such a way that] {audience} [can follow|will enjoy it|is not bored|"
    "understands every word].; Make it suitable for {audience}.; [Avoid|Do not use] [difficult words|the word "
    "very|exclamation "
    "marks|long sentences|any names|cliches|technical terms].; [Mention|Include|Bring in|Refer to] [a|the] "
    "{noun} [at the end|"
    "somewhere|in the first line|twice|].; [End|Close|Finish] with a [question|joke|piece of advice|surprise|thank you|"
    "promise|short summary].; [Begin|Open|Start] with [a question|a number|the weather|an old saying|the word "
    "Yesterday].; "
    "[It|The text|This] [is for|will appear in] {item_of_work} [for {audience}|at the {business}|about {matter}|"
    "].; [Use|"
    "Write] [exactly|at most|no more than] {n} [sentences|lines].; Sound {tone} but [honest|brief|clear|never "
    "rude|{tone}].; "
    "Set it in {place}.; [Think|Remember] that {audience} [will read it|is the reader|has to like it]."
)

# How an order may be put other than as an order; the task follows with a small first letter.
REQUESTS = _options(
    "Please; I would like you to; Your task is to; Your job is to; I want you to; Help me to; I need you to; You "
    "should; "
    "In this task you; Try to; In this exercise, please; For {item_of_work}, please; As [a|an] [editor|teacher|clerk|"
    "scientist|coach|writer|guide|tutor|nurse|chef],; If you can,; Without [looking anything up|hurrying|outside "
    "help],; On "
    "behalf of {person},; For {audience},; Together with {person} I have to solve this:; Using [plain|simple|"
    "good] English,"
)
QUESTIONS = _options(
    "Can you; Could you; Would you; Will you; May I ask you to; Do you know how to; Would you mind if I asked you to"
)
