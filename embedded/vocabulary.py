"""Common words by kind, from which headers and texts are made, and the forms of these words."""

from __future__ import annotations

from random import Random


def _list(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split()))


THINGS = _list(
    """
    acorn anchor apple apron arch attic axe bag ball balloon bank barn barrel basket bath beach bead beam bean bear bed
    bee beetle bell bench bicycle bird blanket boat bolt bone book boot bottle bowl box branch brick bridge broom brush
    bucket bulb button cabin cable cake camp canal candle car card carpet cart castle cat cave chain chair chalk chest
    chicken chimney church circle cliff clock cloud coat coin comb cook corner cow crab crane cup cupboard curtain desk
    dog door dragon drain drawer dress drum duck eagle ear egg engine farm feather fence field finger fire flag flame
    floor flower fork fountain fox frame friend frog garden gate giant glove goat guest hammer harbour hat hedge hen
    herb hill hinge hole hook horn horse hotel house island jacket jar journey kettle key king kitchen kite knot ladder
    lake lamp lane lantern lemon letter lid lighthouse lock machine magnet map market mask meadow mill mirror moon moth
    motor mountain mushroom nail neighbour nest net nurse nut oak oar onion orange orchard oven owl paddle page pan
    parcel park path pear pen pencil pet piano pillow pin pipe plant plate plough pocket pond pot potato puddle pump
    puppet queen rabbit raft rail rainbow ring river road robin rocket roof room root rope rose sail sailor saw school
    screw seal seed shadow shed sheep shell ship shirt shoe shop shovel sister skirt sledge snail sock sofa song spade
    sparrow spider spoon spring squirrel stair stamp star station stone stool storm stove stranger straw stream street
    sweater table tailor tap teacher teapot tent thread ticket tide tile tomato tool tower town toy track train tree
    trumpet tunnel turnip umbrella uncle valley village violin wagon wall watch wave web well whale wheel whistle willow
    wind window wing winter worm
    """
)
STUFFS = _list(
    """
    air bread butter cheese chocolate clay cloth coal coffee copper cork cotton dough dust fire flour fog food frost
    fruit fur furniture glass glue gold grain grass gravel hair hay heat honey ice ink iron jam juice lace leather light
    linen metal milk moss mud music oil paint paper pasta pepper plastic rain rice rope rubber rust salt sand silk
    silver sleep smoke snow soap soil soup sound steam steel straw sugar tar tea thunder time toast water wax weather
    wheat wood wool work yeast yarn
    """
)
DEEDS = _list(
    """
    bake boil borrow build burn bury carry carve catch change check choose clean climb close collect colour cook count
    cover cross cut dig draw dry dye fill find fix fold follow freeze gather grow guard hang heat hide hold join keep
    lay lift light load lock make mark measure melt mend mix move open pack paint peel pick plan plant plough polish
    pour press protect pull push read remove repair roast roll save saw sell serve sew shape share sharpen skin soak
    sort spin split spread stack start stir stop store stretch tame teach test tie train trim turn use wash watch water
    weave weigh wrap write
    """
)
STATES = _list(
    """
    bend bloom boil bounce break burn change close cool crack curl dance drift dry fade fail fall float flow fly fold
    freeze glow grow hide hum jump last leak lean leave live melt migrate move open peel return ring rise roll rot rust
    shake shine shrink sing sink sleep slide smell smoke spin spread stick stop swell swim tick travel turn vanish wait
    wake walk wander
    """
)
QUALITIES = _list(
    """
    ancient big black blue brave bright broken brown busy calm careful cheap clean clear clever cold cool
    cracked crooked damp dark deep dirty dry dull dusty early empty fair fast flat fresh frozen full gentle
    giant golden good green grey happy hard heavy hidden high hollow honest hot hungry kind large last late lazy
    light little lonely long lost loud low lucky narrow neat new noisy old open pale patient plain poor proud
    quick quiet rare red rich ripe rough round rusty safe salty sharp short shy silent silver simple slow small
    smooth soft sour steep sticky strange strong stubborn sweet tall thick thin tidy tiny tired ugly useful warm
    weak wet white wide wild wise wooden yellow young
    """
)
PLACES = _list(
    """
    attic barn bathroom cellar city desert fields forest garden garage hallway harbour hills house kitchen meadow
    mountains night orchard park shed snow sun village water wild winter summer spring autumn wind woods workshop yard
    sea sky dark morning evening rain school town world past
    """
)
NAMES = _list(
    """
    Agnes Albert Bela Bruno Cora Daisy Edgar Elsa Felix Flora Greta Harold Hilda Ida Jasper Kofi Leo Lotte Mabel Mina
    Nora Otto Pablo Petra Ravi Ruth Sami Stella Theo Tilda Viktor Wanda
    """
)
_DOUBLED = frozenset("cut dig hum put run shop sit skin spin split stop swim trim wrap".split())
_STARTS = tuple(
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k l m n p pl pr qu r s sh sk sl sn sp st t th tr v w".split()
)
_MIDDLES = _list("a e i o u ai ea ee oa oo ou ar er or")
_ENDS = tuple(
    "b ck d ff g l ll m n nd ng nk p r rk rn sh sk st t th x ble der ger ket let lin low man mer per ton".split()
)


def plural(word: str) -> str:
    """More than one of a thing."""
    if word in ("sheep",):
        return word
    if word.endswith(("s", "x", "sh", "ch", "potato", "tomato")):
        return word + "es"
    if word[-1] == "y" and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    if word == "loaf":
        return "loaves"
    return word + "s"


def third(verb: str) -> str:
    """What one of them does."""
    return plural(verb)


def doing(verb: str) -> str:
    """The verb as a name for the work."""
    if verb in _DOUBLED:
        return verb + verb[-1] + "ing"
    if verb == "tie":
        return "tying"
    if verb.endswith("e") and not verb.endswith(("ee", "ye")):
        return verb[:-1] + "ing"
    return verb + "ing"


def made_up(rng: Random) -> str:
    """A word that nobody knows: it can only be copied."""
    return "".join(
        rng.choice(_STARTS) + rng.choice(_MIDDLES) + rng.choice(_ENDS if last else ("", "n", "l", "r", "m", "s"))
        for last in ((True,) if rng.random() < 0.4 else (False, True))
    )


def thing(rng: Random) -> str:
    """A thing, now and then a made-up one."""
    return made_up(rng) if rng.random() < 0.18 else rng.choice(THINGS)


def stuff(rng: Random) -> str:
    """A stuff, now and then a made-up one."""
    return made_up(rng) if rng.random() < 0.18 else rng.choice(STUFFS)
