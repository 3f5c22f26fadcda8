"""The lexicon of the corpus: words by category, true facts in tables, and the phrases that fill the slots of a task."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("|"))


CATEGORIES: dict[str, tuple[str, ...]] = {
    "fruit": _words("apple|pear|banana|cherry|plum|mango|peach|grape|lemon|orange|apricot|melon"),
    "vegetable": _words("carrot|onion|leek|cabbage|spinach|potato|turnip|radish|celery|broccoli|parsnip|kale"),
    "mammal": _words("dog|horse|rabbit|whale|mouse|goat|tiger|otter|badger|camel|bat|sheep"),
    "bird": _words("sparrow|eagle|robin|penguin|owl|heron|swan|crow|pigeon|parrot|gull|stork"),
    "fish": _words("trout|salmon|herring|cod|carp|tuna|eel|perch|pike|sardine|haddock|mackerel"),
    "insect": _words("ant|bee|wasp|beetle|moth|butterfly|cricket|fly|mosquito|termite|dragonfly|ladybird"),
    "tool": _words("hammer|saw|drill|spanner|chisel|pliers|shovel|rake|axe|screwdriver|trowel"),
    "instrument": _words("violin|piano|flute|drum|trumpet|guitar|harp|cello|oboe|banjo|clarinet|tuba"),
    "vehicle": _words("car|bus|train|bicycle|lorry|tram|ferry|canoe|tractor|scooter|van|taxi"),
    "garment": _words("coat|scarf|sock|shirt|glove|hat|skirt|jumper|boot|belt|jacket|apron"),
    "metal": _words("iron|copper|silver|gold|tin|lead|zinc|nickel|aluminium|mercury|platinum|cobalt"),
    "colour": _words("red|blue|green|yellow|purple|brown|black|white|pink|grey|orange|violet"),
    "drink": _words("tea|coffee|milk|juice|water|cocoa|lemonade|cider|soda|broth|wine|beer"),
    "sport": _words("tennis|rowing|football|hockey|rugby|judo|fencing|cricket|golf|skiing|boxing|archery"),
    "tree": _words("oak|birch|maple|willow|pine|ash|elm|beech|cedar|poplar|spruce|larch"),
    "flower": _words("rose|tulip|daisy|lily|poppy|violet|iris|orchid|daffodil|marigold|lavender|peony"),
    "furniture": _words("chair|table|sofa|bed|desk|wardrobe|shelf|stool|bench|cupboard|dresser|armchair"),
    "body part": _words("knee|elbow|wrist|ankle|shoulder|thumb|ear|nose|chin|heel|neck|hip"),
    "profession": _words("baker|nurse|plumber|teacher|farmer|pilot|tailor|dentist|lawyer|carpenter|chef|clerk"),
    "spice": _words("pepper|cinnamon|ginger|cumin|nutmeg|saffron|paprika|turmeric|clove|cardamom|mustard|salt"),
}
# Words that stand in two categories would make a label wrong.
AMBIGUOUS = frozenset({"orange", "violet", "cricket", "lead"})

NAMES = _words(
    "Anna|Ben|Clara|David|Elena|Farid|Grace|Hugo|Ines|Jonas|Kemal|Laura|Marco|Nadia|Oscar|Priya|Quinn|Rosa|Samir|Tara|"
    "Umar|Vera|Walter|Yuki|Zoe|Amina|Boris|Carmen|Dario|Emil|Fiona|Gita|Hannah|Ivan|Julia|Karl|Lena|Mei|Nils|Olga"
)
# country, capital, continent, currency
COUNTRIES = tuple(
    _words(row.replace(",", "|"))
    for row in """
France,Paris,Europe,euro;Japan,Tokyo,Asia,yen;Egypt,Cairo,Africa,pound;Canada,Ottawa,North America,dollar
Peru,Lima,South America,sol;Kenya,Nairobi,Africa,shilling;India,New Delhi,Asia,rupee;Norway,Oslo,Europe,krone
Chile,Santiago,South America,peso;Spain,Madrid,Europe,euro;Mexico,Mexico City,North America,peso;China,Beijing,Asia,yuan
Ghana,Accra,Africa,cedi;Poland,Warsaw,Europe,zloty;Thailand,Bangkok,Asia,baht;Greece,Athens,Europe,euro
Cuba,Havana,North America,peso;Sweden,Stockholm,Europe,krona;Vietnam,Hanoi,Asia,dong;Morocco,Rabat,Africa,dirham
Italy,Rome,Europe,euro;Nepal,Kathmandu,Asia,rupee;Brazil,Brasilia,South America,real;Hungary,Budapest,Europe,forint
Ireland,Dublin,Europe,euro;Colombia,Bogota,South America,peso;Zambia,Lusaka,Africa,kwacha;Jordan,Amman,Asia,dinar
Finland,Helsinki,Europe,euro;Tunisia,Tunis,Africa,dinar;Uruguay,Montevideo,South America,peso
Iceland,Reykjavik,Europe,krona
""".replace("\n", ";").split(";")
    if row
)
# animal, young, home, sound, legs
ANIMALS = tuple(
    _words(row.replace(",", "|"))
    for row in """
dog,puppy,kennel,barks,four;cat,kitten,house,meows,four;cow,calf,barn,moos,four;horse,foal,stable,neighs,four
sheep,lamb,fold,bleats,four;pig,piglet,sty,grunts,four;duck,duckling,pond,quacks,two;hen,chick,coop,clucks,two
lion,cub,savanna,roars,four;owl,owlet,tree hollow,hoots,two;frog,tadpole,pond,croaks,four;goose,gosling,pond,honks,two
wolf,pup,den,howls,four;bee,larva,hive,buzzes,six;goat,kid,barn,bleats,four;bear,cub,den,growls,four
""".replace("\n", ";").split(";")
    if row
)


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((left, right) for left, right in (pair.split(":") for pair in text.split()))


OPPOSITES = _pairs(
    "hot:cold big:small fast:slow early:late full:empty happy:sad light:dark hard:soft wet:dry old:new high:low "
    "near:far "
    "strong:weak rich:poor thick:thin loud:quiet open:closed clean:dirty wide:narrow sharp:blunt deep:shallow "
    "long:short "
    "cheap:expensive brave:cowardly rough:smooth tight:loose top:bottom inside:outside always:never begin:end win:lose "
    "give:take push:pull buy:sell arrive:leave remember:forget accept:refuse rise:fall laugh:cry love:hate "
    "increase:decrease"
)
SYNONYMS = _pairs(
    "big:large quick:rapid begin:start tired:weary angry:furious clever:smart small:little end:finish "
    "buy:purchase ask:inquire "
    "help:assist happy:glad silent:quiet rich:wealthy brave:courageous odd:strange hide:conceal choose:select "
    "mend:repair "
    "shout:yell answer:reply gather:collect near:close sick:ill simple:easy gift:present journey:trip error:mistake "
    "speak:talk keep:retain wander:roam"
)
PLURALS = _pairs(
    "child:children mouse:mice foot:feet tooth:teeth man:men woman:women goose:geese leaf:leaves knife:knives "
    "city:cities "
    "baby:babies box:boxes bus:buses wolf:wolves shelf:shelves lady:ladies potato:potatoes church:churches "
    "brush:brushes "
    "berry:berries house:houses key:keys day:days ox:oxen loaf:loaves story:stories glass:glasses hero:heroes"
)
PAST = _pairs(
    "go:went see:saw take:took run:ran write:wrote eat:ate give:gave come:came find:found know:knew sing:sang "
    "drive:drove "
    "buy:bought think:thought bring:brought catch:caught teach:taught swim:swam fly:flew break:broke speak:spoke "
    "walk:walked jump:jumped play:played stop:stopped carry:carried try:tried plan:planned open:opened"
)
COMPARATIVES = _pairs(
    "big:bigger tall:taller good:better bad:worse happy:happier thin:thinner fast:faster easy:easier wide:wider "
    "far:farther "
    "cold:colder heavy:heavier early:earlier hot:hotter nice:nicer busy:busier"
)
SYMBOLS = _pairs(
    "hydrogen:H oxygen:O carbon:C nitrogen:N iron:Fe gold:Au silver:Ag copper:Cu sodium:Na helium:He calcium:Ca "
    "zinc:Zn "
    "lead:Pb tin:Sn neon:Ne sulfur:S chlorine:Cl magnesium:Mg"
)
SHORT_FORMS = _pairs(
    "it-is:it's do-not:don't we-are:we're I-am:I'm they-have:they've cannot:can't will-not:won't you-are:you're"
)
PLANETS = _words("Mercury|Venus|Earth|Mars|Jupiter|Saturn|Uranus|Neptune")
DAYS = _words("Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday")
MONTHS = _words("January|February|March|April|May|June|July|August|September|October|November|December")
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
NUMBER_WORDS = _words(
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|"
    "eighteen|nineteen|twenty"
)
TENS = _words("||twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety")
# from, to, factor
UNITS = (
    ("metres", "centimetres", 100),
    ("kilometres", "metres", 1000),
    ("kilograms", "grams", 1000),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("litres", "millilitres", 1000),
    ("feet", "inches", 12),
    ("yards", "feet", 3),
    ("years", "months", 12),
    ("centimetres", "millimetres", 10),
    ("dozens", "single items", 12),
    ("pounds", "ounces", 16),
    ("tonnes", "kilograms", 1000),
    ("gallons", "pints", 8),
)

# Each concept with one true sentence about it.
CONCEPTS = tuple(
    tuple(row.split(": ", 1))
    for row in """photosynthesis: Plants use sunlight, water and carbon dioxide to make sugar and oxygen.
compound interest: Interest is paid on the first sum and also on the interest it has already earned.
gravity: Every mass pulls on every other mass, so things near the Earth fall towards it.
evaporation: A liquid turns slowly into a gas at its surface, faster when it is warm.
inflation: Prices rise over time, so the same money buys less than before.
condensation: Water vapour cools on a cold surface and turns back into drops.
a password manager: It stores a different strong password for each account behind one main password.
herd immunity: When most people are immune, a disease finds too few people to spread among.
supply and demand: A price rises when many want a thing and few have it, and falls in the other case.
the water cycle: Water rises as vapour, forms clouds, falls as rain and runs back to the sea.
friction: Two surfaces that rub against each other slow each other down and grow warm.
fermentation: Tiny living things turn sugar into acid, gas or alcohol.
an eclipse: One body in space moves into the shadow of another.
recycling: Used material is collected and made into new things instead of being thrown away.
migration: Animals or people move from one region to another, often with the seasons.
erosion: Wind, water and ice wear down rock and soil and carry the pieces away.
insulation: A layer that conducts heat badly keeps the inside warm or cold for longer.
a mortgage: A bank lends the money for a house and may take the house if it is not paid back.
pollination: Pollen is carried from one flower to another so that seeds can form.
a leap year: Every fourth year has one day more, because the Earth needs a little over 365 days for its path.
static electricity: Rubbing moves charge from one thing to another, and it jumps back as a small spark.
binary numbers: Every number is written with only two digits, zero and one.
a search index: Each word is stored with the list of places where it occurs.
encryption: A message is changed with a key so that only someone with the right key can read it.
the food chain: Plants feed animals, and those animals feed other animals.
a vaccine: It shows the body a harmless part of a germ so that it learns to fight the real one.
buoyancy: Water pushes up on a thing with a force equal to the weight of the water it pushes aside.
an algorithm: It is a list of exact steps that solves a problem and then stops.
composting: Kitchen and garden waste rots into dark soil that feeds plants.
a budget: It is a plan that sets income beside spending for some period.
the greenhouse effect: Some gases let sunlight in but hold back the heat that the ground gives off.
echoes: Sound comes back after it hits a hard wall or a cliff.
rust: Iron joins with oxygen and water and turns into a brown, weak crust.
magnetism: Like poles push each other away and unlike poles pull together.
a trade union: Workers join together to bargain for better pay and conditions.
insurance: Many people pay a little so that the few who suffer a loss can be paid a lot.
sleep: The body repairs itself and the brain sorts what it has learned.""".split("\n")
)
