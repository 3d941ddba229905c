"""What the demo's people, firms and goods are called. All of them are made up."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words(
    "Ada Amir Anouk Aria Bela Birgit Carlos Chen Dana Devi Edda Elif Emil Fatima Femke Finn Greta "
    "Hana Hugo Ines Ivo Jana Jonas Kaito Kirsi Lara Leif Lucia Malik Maren Mina Nadia Nils Noor "
    "Olga Oskar Paula Pierre Rania Rosa Saga Samir Sofia Tariq Tessa Timo Uma Vera Viktor Yuki"
)
LAST_NAMES = _words(
    "Abel Adeyemi Almeida Arnold Baptiste Berg Bianchi Castro Dahl Duarte Eklund Farkas Fischer "
    "Garcia Hansen Hoffmann Ito Janssen Kaya Keller Kowalski Kruger Larsen Lindqvist Lopez Maier "
    "Marchetti Mbeki Meyer Moreau Nakamura Novak Okafor Olsen Papadakis Petit Quist Ricci Rossi "
    "Sato Schmid Silva Sorensen Takala Tanaka Toth Vermeer Virtanen Weber Zhou"
)
FIRM_WORDS = _words(
    "Amber Birch Cedar Delta Ember Fjord Granite Harbour Indigo Juniper Kestrel Lantern Meadow "
    "Nimbus Orchard Pebble Quarry Ripple Saffron Tundra"
)
FIRM_KINDS = ("Logistics", "Foods", "Instruments", "Design", "Energy", "Textiles")
INDUSTRIES = ("Transport", "Food", "Engineering", "Services", "", "Retail")
COUNTRIES = ("DE", "FR", "NO", "nl", "IT", " se ", "ES", "FI", "DK", "PT")
GOODS = ("Lamp", "Chair", "Desk", "Shelf", "Kettle", "Blanket", "Clock", "Vase", "Basket", "Mirror")
MATERIALS = ("oak", "steel", "linen", "glass", "wool", "ceramic")
CATEGORIES = ("Lighting", "Seating", "Tables", "Storage", "Kitchen", "Textiles", "Decoration")
