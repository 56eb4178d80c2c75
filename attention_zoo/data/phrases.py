"""The hand-written half of the phrasebook: sentence frames, nouns, and which CLDR entries to use.

A frame says one thing in several languages. `{kind}` is a slot; slots of one class of values (`date` and
`weekday`, say) speak of the same value, and a digit makes another one (`{date}` and `{date2}`). Values of two
digits come in ascending order where the class has one (the later date second). Nouns are chosen so that each
language needs one form only: German ones are feminine or neuter, so that nominative and accusative agree;
names and French cities are free of the endings that would need care. The first letter of a sentence is
capitalised afterwards. A frame without a language is left out for that language.
"""

LANGUAGES = ("en", "de", "fr", "es")


def _rows(text: str) -> tuple[dict[str, str], ...]:
  """A table of one row a line, the columns LANGUAGES separated by "|"; empty cells are left out."""
  rows = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]
  return tuple({l: cell for l, cell in zip(LANGUAGES, row, strict=True) if cell} for row in rows)


def _frames(text: str) -> tuple[dict[str, str], ...]:
  """Frames as blocks of lines "language: text", separated by empty lines."""
  blocks = [block.strip().splitlines() for block in text.strip().split("\n\n")]
  return tuple(dict(line.strip().split(": ", 1) for line in block) for block in blocks)


FRAMES = _frames("""
en: {event} starts on {date} at {time}.
de: {event} beginnt am {date} um {time} Uhr.
fr: {event} commence le {date} à {time}.
es: {event} empieza el {date} a las {time}.

en: {event} ends on {weekday}, {date}.
de: {event} endet am {weekday}, dem {date}.
fr: {event} se termine le {weekday} {date}.
es: {event} termina el {weekday} {date}.

en: today is {weekday}, {date}.
de: heute ist {weekday}, der {date}.
fr: nous sommes le {weekday} {date}.
es: hoy es {weekday}, {date}.

en: we have moved {event} from {date} to {date2}.
de: wir haben {event} vom {date} auf den {date2} verlegt.
fr: nous avons déplacé {event} du {date} au {date2}.
es: hemos trasladado {event} del {date} al {date2}.

en: the contract runs from {date} to {date2}.
de: der Vertrag läuft vom {date} bis zum {date2}.
fr: le contrat court du {date} au {date2}.
es: el contrato va del {date} al {date2}.

en: {event} takes place in {city} in {month}.
de: {event} findet im {month} in {city} statt.
fr: {event} a lieu à {city} en {month}.
es: {event} se celebra en {city} en {month}.

en: please reply to {name} before {date}.
de: bitte antworten Sie {name} vor dem {date}.
fr: veuillez répondre à {name} avant le {date}.
es: por favor, responda a {name} antes del {date}.

en: the birthday of {name} is on {day}.
de: der Geburtstag von {name} ist am {day}.
fr: l’anniversaire de {name} est le {day}.
es: el cumpleaños de {name} es el {day}.

en: delivered to {name}: {medium_date}, {time}.
de: geliefert an {name}: {medium_date}, {time} Uhr.
fr: livré à {name} : {medium_date}, {time}.
es: entregado a {name}: {medium_date}, {time}.

en: {event} is in room {integer} on {day}.
de: {event} ist am {day} in Raum {integer}.
fr: {event} est dans la salle {integer} le {day}.
es: {event} es en la sala {integer} el {day}.

en: does {event} start at {time} or at {time2}?
de: beginnt {event} um {time} oder um {time2} Uhr?
fr: est-ce que {event} commence à {time} ou à {time2} ?
es: ¿{event} empieza a las {time} o a las {time2}?

en: our shop in {city} opens at {time} and closes at {time2}.
de: unser Geschäft in {city} öffnet um {time} Uhr und schließt um {time2} Uhr.
fr: notre magasin à {city} ouvre à {time} et ferme à {time2}.
es: nuestra tienda en {city} abre a las {time} y cierra a las {time2}.

en: in {city} it is {time} now.
de: in {city} ist es jetzt {time} Uhr.
fr: à {city}, il est maintenant {time}.
es: en {city} ahora son las {time}.

en: the train to {city} leaves at {time} from platform {integer}.
de: der Zug nach {city} fährt um {time} Uhr von Gleis {integer} ab.
fr: le train pour {city} part à {time} de la voie {integer}.
es: el tren a {city} sale a las {time} de la vía {integer}.

en: {name} arrives in {city} on {weekday} at {time}.
de: {name} kommt am {weekday} um {time} Uhr in {city} an.
fr: {name} arrive à {city} {weekday} à {time}.
es: {name} llega a {city} el {weekday} a las {time}.

en: the flight from {city} to {city2} takes {hours} and {minutes}.
de: der Flug von {city} nach {city2} dauert {hours} und {minutes}.
fr: le vol de {city} à {city2} dure {hours} et {minutes}.
es: el vuelo de {city} a {city2} dura {hours} y {minutes}.

en: the journey to {city} takes {span}.
de: die Fahrt nach {city} dauert {span}.
fr: le trajet jusqu’à {city} dure {span}.
es: el viaje a {city} dura {span}.

en: {event} in {city} lasts {span}.
de: {event} in {city} dauert {span}.
fr: {event} à {city} dure {span}.
es: {event} en {city} dura {span}.

en: {event} in {city} starts {future}.
de: {event} in {city} beginnt {future}.
fr: {event} à {city} commence {future}.
es: {event} en {city} empieza {future}.

en: {name} moved to {city} {past}.
de: {name} ist {past} nach {city} gezogen.
fr: {name} a déménagé à {city} {past}.
es: {name} se mudó a {city} {past}.

en: the number is {number}.
de: die Zahl lautet {number}.
fr: le nombre est {number}.
es: el número es {number}.

en: {number} is less than {number2}.
de: {number} ist kleiner als {number2}.
fr: {number} est plus petit que {number2}.
es: {number} es menor que {number2}.

en: {augend} plus {addend} equals {sum}.
de: {augend} plus {addend} ergibt {sum}.
fr: {augend} plus {addend} égale {sum}.
es: {augend} más {addend} es igual a {sum}.

en: how do you say “{number}” in {language}?
de: wie sagt man „{number}“ auf {language}?
fr: comment dit-on « {number} » en {language} ?
es: ¿cómo se dice «{number}» en {language}?

en: the family of {name} came to {city} in {year_words}.
de: die Familie von {name} kam {year_words} nach {city}.
fr: la famille de {name} est arrivée à {city} en {year_words}.
es: la familia de {name} llegó a {city} en {year_words}.

en: for {name}, this is the {ordinal} {part}.
de: für {name} ist das {article} {ordinal} {part}.
fr: pour {name}, c’est {article} {ordinal} {part}.
es: para {name}, este es el {part} {ordinal}.

en: the exact value is {decimal}.
de: der genaue Wert ist {decimal}.
fr: la valeur exacte est {decimal}.
es: el valor exacto es {decimal}.

en: {goods} in {city} costs {money}.
de: {goods} in {city} kostet {money}.
fr: {goods} à {city} coûte {money}.
es: {goods} en {city} cuesta {money}.

en: {name} paid {money} for {goods}.
de: {name} hat {money} für {goods} bezahlt.
fr: {name} a payé {money} pour {goods}.
es: {name} pagó {money} por {goods}.

en: today {goods} costs only {price}.
de: heute kostet {goods} nur {price}.
fr: aujourd’hui, {goods} coûte seulement {price}.
es: hoy {goods} cuesta solo {price}.

en: prices rose by {percent} in {month}.
de: die Preise stiegen im {month} um {percent}.
fr: les prix ont augmenté de {percent} en {month}.
es: los precios subieron un {percent} en {month}.

en: sales fell by {percent} in the {quarter} of {year}.
de: der Umsatz sank im {quarter} {year} um {percent}.
fr: les ventes ont baissé de {percent} au {quarter} {year}.

en: the distance from {city} to {city2} is {length}.
de: die Entfernung von {city} nach {city2} beträgt {length}.
fr: la distance de {city} à {city2} est de {length}.
es: la distancia de {city} a {city2} es de {length}.

en: {goods} weighs {mass}.
de: {goods} wiegt {mass}.
fr: {goods} pèse {mass}.
es: {goods} pesa {mass}.

en: today it is {temperature} in {city}.
de: heute sind es in {city} {temperature}.
fr: aujourd’hui, il fait {temperature} à {city}.
es: hoy hay {temperature} en {city}.

en: the wind speed in {city} is {speed}.
de: die Windgeschwindigkeit in {city} beträgt {speed}.
fr: la vitesse du vent à {city} est de {speed}.
es: la velocidad del viento en {city} es de {speed}.

en: {name}, please add {volume} of water.
de: {name}, bitte gib {volume} Wasser dazu.
fr: {name}, ajoute {volume} d’eau, s’il te plaît.
es: {name}, por favor, añade {volume} de agua.

en: {name} flies to {country} on {date}.
de: {name} fliegt am {date} nach {country}.
es: {name} vuela a {country} el {date}.

en: chapter {integer} is about {country} and {country2}.
de: in Kapitel {integer} geht es um {country} und {country2}.
es: el capítulo {integer} trata de {country} y {country2}.

en: destination: {territory}, departure: {time}.
de: Ziel: {territory}, Abfahrt: {time} Uhr.
fr: destination : {territory}, départ : {time}.
es: destino: {territory}, salida: {time}.

en: names on the map: {territory}, {territory2}, {territory3}.
de: Namen auf der Karte: {territory}, {territory2}, {territory3}.
fr: noms sur la carte : {territory}, {territory2}, {territory3}.
es: nombres en el mapa: {territory}, {territory2}, {territory3}.

en: {name} speaks {language} and {language2}.
de: {name} spricht {language} und {language2}.
fr: {name} parle {language} et {language2}.
es: {name} habla {language} y {language2}.

en: {name} often speaks {language} in {city}.
de: {name} spricht in {city} oft {language}.
fr: {name} parle souvent {language} à {city}.
es: {name} habla a menudo {language} en {city}.
""")

# Feminine or neuter in German, any gender elsewhere.
EVENTS = _rows("""
the meeting | die Besprechung | la réunion | la reunión
the concert | das Konzert | le concert | el concierto
the exam | die Prüfung | l’examen | el examen
the exhibition | die Ausstellung | l’exposition | la exposición
the wedding | die Hochzeit | le mariage | la boda
the party | das Fest | la fête | la fiesta
the lecture | die Vorlesung | le cours | la clase
the match | das Spiel | le match | el partido
the trip | die Reise | le voyage | el viaje
the seminar | das Seminar | le séminaire | el seminario
the conference | die Konferenz | la conférence | la conferencia
the race | das Rennen | la course | la carrera
""")

GOODS = _rows("""
the lamp | die Lampe | la lampe | la lámpara
the book | das Buch | le livre | el libro
the bicycle | das Fahrrad | le vélo | la bicicleta
the watch | die Uhr | la montre | el reloj
the picture | das Bild | le tableau | el cuadro
the camera | die Kamera | l’appareil photo | la cámara
the bed | das Bett | le lit | la cama
the sofa | das Sofa | le canapé | el sofá
the bag | die Tasche | le sac | el bolso
the jacket | die Jacke | la veste | la chaqueta
the car | das Auto | la voiture | el coche
the boat | das Boot | le bateau | el barco
the piano | das Klavier | le piano | el piano
the guitar | die Gitarre | la guitare | la guitarra
the tent | das Zelt | la tente | la tienda de campaña
the phone | das Telefon | le téléphone | el teléfono
""")

# What one counts; masculine in Spanish, where the ordinal follows.
PARTS = _rows("""
attempt | Versuch | essai | intento
game | Spiel | match | partido
chapter | Kapitel | chapitre | capítulo
day | Tag | jour | día
year | Jahr | an | año
book | Buch | livre | libro
prize | Preis | prix | premio
step | Schritt | pas | paso
journey | Reise | voyage | viaje
night shift | Nachtschicht | poste de nuit | turno de noche
""")

PART_ARTICLES = {
  "de": ("der", "das", "das", "der", "das", "das", "der", "der", "die", "die"),
  "fr": ("le",) * len(PARTS),
}

# No final s, for the German genitive and the English possessive; consonants first, for French.
NAMES = (
  "Maria Paul Laura Peter Julia David Nina Martin Sofia Daniel Clara Robert Lena Tim Marta Simon Sara Leo"
).split()

# Time zones, for their cities: names of one form, to which French "à" and German "nach" fit.
CITIES = """
  Europe/Vienna Europe/Berlin Europe/Paris Europe/Rome Europe/Madrid Europe/Lisbon Europe/London
  Europe/Dublin Europe/Brussels Europe/Prague Europe/Warsaw Europe/Budapest Europe/Moscow Europe/Stockholm
  Europe/Copenhagen Europe/Zurich Europe/Belgrade Europe/Bucharest Europe/Sofia Europe/Zagreb Europe/Riga
  Africa/Nairobi Africa/Tunis Africa/Dakar Africa/Johannesburg Asia/Tokyo Asia/Seoul Asia/Shanghai
  Asia/Bangkok Asia/Beirut Asia/Damascus Asia/Baghdad Asia/Tehran Asia/Kabul Asia/Dubai Asia/Manila
  Asia/Jakarta Asia/Kathmandu America/New_York America/Chicago America/Denver America/Toronto
  America/Vancouver America/Bogota America/Lima America/Caracas Australia/Sydney Australia/Melbourne
""".split()

# Territories without an article in English, German and Spanish, so that "to" is "nach" and "a".
COUNTRIES = """
  AL AD AO AM AU AT BD BB BY BE BZ BJ BO BR BG BF BI KH CM CA CV CL CN CO CR HR CU CY CZ DK DJ EC EG EE ET
  FI FR GA DE GH GR GD GT GN GY HT HN HU IS IN ID IE IL IT JM JP JO KZ KE KW LA LV LY LI LT LU MG MW MY ML
  MT MR MU MX MA ME MZ NA NP NZ NI NG NO OM PK PA PY PE PL PT QA RO RU RW RS SG SI SO ZA ES SR SE SY TJ TZ
  TH TG TN TM UG UY UZ VE VN ZM ZW
""".split()

# Others, which are only listed.
LISTED = (
  "CH TR UA SK MN IR IQ GB US NL PH MV BS KM CF DO YE LB TD NE AE LK SN SD SS KR KP GL FO NC GI".split()
)

TONGUES = """
  ar be bg bn bo bs ca cs cy da de el en eo es et eu fa fi fr ga gl he hi hr hu hy id is it ja ka kk ko ku
  la lb lt lv mk mn mt ne nl pl pt ro ru sk sl sq sr sv sw ta th tr uk ur uz vi zh
""".split()

CURRENCIES = "EUR USD GBP CHF SEK NOK DKK PLN CZK HUF CAD AUD NZD INR MXN TRY RUB EGP".split()
SYMBOLS = ("EUR", "USD", "GBP")

UNITS = {
  "length": ("length-kilometer", "length-mile"),
  "mass": ("mass-kilogram", "mass-pound"),
  "temperature": ("temperature-celsius",),
  "speed": ("speed-kilometer-per-hour", "speed-mile-per-hour", "speed-meter-per-second"),
  "volume": ("volume-liter", "volume-milliliter"),
  "span": ("duration-minute", "duration-hour", "duration-day", "duration-week", "duration-month"),
}
