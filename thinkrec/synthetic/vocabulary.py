"""The words of the synthetic world: what its items are called, what their traits sound like, how they are described.

Each trait value has five surface words, and no word belongs to two values: whoever reads a description can find the
value, but has to learn which words mean the same. Names of values are the first of their words.
"""

from __future__ import annotations

GENRES: tuple[str, ...] = ("Drama", "Comedy", "Thriller", "Western", "Fantasy", "Mystery", "Romance", "Musical")

# Nouns: "a story of ...".
THEMES: dict[str, tuple[str, ...]] = {
    "revenge": ("revenge", "vengeance", "vendetta", "payback", "retribution"),
    "betrayal": ("betrayal", "treachery", "deceit", "disloyalty", "backstabbing"),
    "survival": ("survival", "endurance", "hardship", "castaways", "perseverance"),
    "ambition": ("ambition", "rivalry", "striving", "glory", "greed"),
    "friendship": ("friendship", "camaraderie", "companionship", "comrades", "buddies"),
    "family": ("family", "kinship", "siblings", "parenthood", "ancestry"),
    "discovery": ("discovery", "exploration", "expeditions", "voyages", "pioneers"),
    "justice": ("justice", "fairness", "courtrooms", "tribunals", "righteousness"),
}

# Adjectives: "the mood is ...".
TONES: dict[str, tuple[str, ...]] = {
    "dark": ("dark", "bleak", "grim", "brooding", "sombre"),
    "tense": ("tense", "gripping", "suspenseful", "uneasy", "nervous"),
    "ironic": ("ironic", "sardonic", "satirical", "mocking", "wry"),
    "warm": ("warm", "tender", "heartfelt", "gentle", "cosy"),
    "witty": ("witty", "humorous", "playful", "droll", "cheeky"),
    "dreamy": ("dreamy", "surreal", "hazy", "hypnotic", "otherworldly"),
}

# Adjectives: "the pace is ...".
PACES: dict[str, tuple[str, ...]] = {
    "brisk": ("brisk", "rapid", "speedy", "racing", "breathless"),
    "erratic": ("erratic", "jagged", "uneven", "fitful", "restless"),
    "steady": ("steady", "measured", "balanced", "regular", "unwavering"),
    "slow": ("slow", "leisurely", "unhurried", "lingering", "languid"),
}

TRAITS: dict[str, dict[str, tuple[str, ...]]] = {"theme": THEMES, "tone": TONES, "pace": PACES}

PATTERNS: dict[str, tuple[str, ...]] = {
    "theme": (
        "At its heart this is a story of {words}.",
        "It is a study of {words} and what they cost.",
        "Everything here turns on {words}.",
        "The plot grows out of {words}.",
        "Few films have said as much about {words}.",
        "Its subject is {words}, seen from close by.",
    ),
    "tone": (
        "The mood is {words} throughout.",
        "Critics called it {words}.",
        "Its {words} style divides audiences.",
        "The dialogue stays {words} to the end.",
        "Most viewers find it {words}.",
        "Told in that {words} voice of its makers.",
    ),
    "pace": (
        "The pace is {words}.",
        "The editing is {words} from the first reel.",
        "Scenes follow one another in {words} rhythm.",
        "Its {words} tempo sets it apart.",
        "The telling is {words}, act after act.",
    ),
}

# Sentences that name a value the item does *not* have.
MISLEADING: tuple[str, ...] = (
    "The same studio also made a film known for {words}.",
    "Do not expect {words} here.",
    "Often sold together with a box of classics tagged {words}.",
)

DISTRACTORS: tuple[str, ...] = (
    "Shot on location in {place} over {number} weeks.",
    "It opened in {place} to full houses.",
    "The score was recorded with the {place} orchestra.",
    "Nominated for {number} festival prizes.",
    "The cast includes {number} newcomers.",
    "Brand: {studio}. Price: ${number}.99.",
    "Visit www.{studio}films.com for more.",
    "<b>Runtime:</b> 1{number} minutes.<br>",
    "<p>Includes the director&#39;s cut &amp; {number} deleted scenes.</p>",
    "&copy; {studio} Pictures, all rights reserved.",
    "Free shipping on orders over ${number}.",
    "Region {number} edition with subtitles.",
)

PLACES: tuple[str, ...] = ("Lisbon", "Prague", "Oslo", "Tunis", "Quebec", "Kyoto", "Lima", "Cork", "Riga", "Perth")
STUDIOS: tuple[str, ...] = ("northgate", "bluelamp", "harrow", "tallship", "minerva", "oakfield")

TITLE_ADJECTIVES: tuple[str, ...] = (
    "Amber", "Ancient", "Blue", "Borrowed", "Broken", "Copper", "Crimson", "Crooked", "Distant", "Eastern",
    "Eleventh", "Empty", "Final", "Forgotten", "Frozen", "Gilded", "Golden", "Hidden", "Hollow", "Iron",
    "Ivory", "Last", "Little", "Lost", "Marble", "Midnight", "Narrow", "Northern", "Open", "Painted",
    "Paper", "Quiet", "Salt", "Scarlet", "Second", "Seventh", "Silver", "Southern", "Velvet", "Winter",
)  # fmt: skip
TITLE_NOUNS: tuple[str, ...] = (
    "Anchor", "Avenue", "Bell", "Bridge", "Candle", "Canyon", "Carousel", "Compass", "Corridor", "Crown",
    "Engine", "Feather", "Field", "Fountain", "Garden", "Harbour", "Horizon", "House", "Island", "Key",
    "Ladder", "Lantern", "Letter", "Lighthouse", "Map", "Market", "Mirror", "Mountain", "Orchard", "Piano",
    "River", "Road", "Sparrow", "Station", "Summer", "Theatre", "Tower", "Train", "Window", "Wolf",
)  # fmt: skip
