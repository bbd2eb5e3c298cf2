"""Facts that titles take for granted: nicknames, second catalogues, numbers of genres.

One block per composer, one line per work: ``identity: alias; alias; …``. An identity is a catalogue
number (``op57``, ``d899-3``, ``hob16-50``) or, where there is none in use, a name. An alias is

* a genre and a number: ``sonata 23`` ("Sonata No. 23", "Sonata 23");
* a genre and a key: ``sonata in b flat major`` (used only where no number says more);
* another catalogue's number: ``= op90``;
* anything else: words that stand in the title, however they are spaced, accented or capitalised.

A line of ``identity-#`` is a series of pieces: the number comes from the title ("No. 10", "/10").
An identity without a number in it is one work: numbers behind it count its movements. ``liszt/…``
is another composer's. Names are
facts of music history as any work list gives them; a line that is wrong can be corrected without
touching code (count :data:`pipeline.corpora.compositions.VERSION` up).
"""

from __future__ import annotations

WORKS: dict[str, str] = {
    "albeniz": """
        op165-2: espana opus 165 tango; tango
        iberia-evocacion: evocacion; evocation
        iberia-triana: triana
        iberia-book-2: iberia book 2
        op47-5: asturias; leyenda
    """,
    "bach": """
        bwv1004: chaconne
        bwv565: toccata in d minor
        bwv208-9: sheep may safely graze
        bwv147-10: joy of mans desiring
        bwv806: english suite 1
        bwv807: english suite 2; english suite in a minor
        bwv808: english suite 3; english suite in g minor
        bwv809: english suite 4
        bwv810: english suite 5
        bwv811: english suite 6; english suite in d minor
        bwv812: french suite 1
        bwv813: french suite 2
        bwv814: french suite 3
        bwv815: french suite 4
        bwv816: french suite 5
        bwv817: french suite 6
        bwv825: partita 1
        bwv826: partita 2; partita in c minor
        bwv827: partita 3
        bwv828: partita 4
        bwv829: partita 5
        bwv830: partita 6; partita in e minor
        bwv831: overture in the french style; french overture
        bwv903: chromatic fantasy; chromatic fantasia
        bwv971: italian concerto
        bwv988: goldberg
    """,
    "balakirev": """
        islamey: islamey; islamei
    """,
    "beethoven": """
        op2-1: sonata 1
        op2-2: sonata 2
        op2-3: sonata 3
        op7: sonata 4
        op10-1: sonata 5
        op10-2: sonata 6
        op10-3: sonata 7
        op13: sonata 8; pathetique
        op14-1: sonata 9
        op14-2: sonata 10
        op22: sonata 11
        op26: sonata 12
        op27-1: sonata 13
        op27-2: sonata 14; moonlight; mondschein; quasi una fantasia in c sharp minor
        op28: sonata 15; sonata pastorale; pastoral sonata
        op31-1: sonata 16
        op31-2: sonata 17; tempest; der sturm
        op31-3: sonata 18; the hunt
        op49-1: sonata 19
        op49-2: sonata 20
        op53: sonata 21; waldstein
        op54: sonata 22
        op57: sonata 23; appassionata
        op78: sonata 24; a therese
        op79: sonata 25
        op81a: sonata 26; les adieux; das lebewohl; = op81
        op90: sonata 27
        op101: sonata 28
        op106: sonata 29; hammerklavier
        op109: sonata 30
        op110: sonata 31
        op111: sonata 32
        op35: eroica variations
        op77:
        op120: diabelli
        op126:
        op129: lost penny
        woo57: andante favori
        woo59: fur elise
        woo80: thirty two variations in c minor; 32 variations in c minor
    """,
    "brahms": """
        op1: sonata 1
        op2: sonata 2
        op5: sonata 3; sonata in f minor
        op24: theme of handel; handel variations
        op35: paganini variations; theme by paganini
    """,
    "chopin": """
        op4: sonata 1
        op35: sonata 2
        op58: sonata 3; sonata in b minor
        op23: ballade 1
        op38: ballade 2
        op47: ballade 3
        op52: ballade 4
        op20: scherzo 1
        op31: scherzo 2
        op39: scherzo 3
        op54: scherzo 4
        op29: impromptu 1
        op36: impromptu 2
        op51: impromptu 3
        op66: fantaisie impromptu
        op22: andante spianato
        op27-2: nocturne in d flat major
        op49: fantasy in f minor
        op57: berceuse
        op60: barcarolle
        op61: polonaise fantasie; polonaise fantaisie; polonaise fantasy
        op28-15: raindrop
        op10-12: revolutionary
        op25-11: winter wind
    """,
    "clementi": """
        op25-5: sonata in f sharp minor
    """,
    "debussy": """
        l100-1: pagodes; pagodas
        l100-2: soiree dans grenade
        l100-3: jardins sous la pluie
        l100: estampes
        l106: isle joyeuse
        l95: pour le piano
        l75-2: bergamasque menuet
        l75-3: clair de lune
        l75-4: passepied
        l75: suite bergamasque
        l110-1: reflets dans l eau
        l110-2: hommage a rameau
        l110: images book 1; images series 1; image book 1
        l111-1: cloches a travers
        l111-2: et la lune descend
        l111-3: poissons d or
        l111: images book 2; images series 2; image book 2
        l117-1: danseuses de delphes
        l117-2: voiles
        l117-3: le vent dans la plaine
        l117-4: les sons et les parfums
        l117-5: collines d anacapri
        l117-6: pas sur la neige
        l117-7: le vent d ouest
        l117-8: fille aux cheveux de lin
        l117-9: serenade interrompue
        l117-10: cathedrale engloutie
        l117-11: danse de puck
        l117-12: minstrels
        l123-1: brouillards
        l123-2: feuilles mortes
        l123-3: puerta del vino
        l123-4: exquises danseuses
        l123-5: bruyeres
        l123-6: general lavine
        l123-7: audiences du clair de lune
        l123-8: ondine
        l123-9: hommage a s pickwick
        l123-10: canope
        l123-11: tierces alternees
        l123-12: feux d artifice; fireworks
        l136-1: pour les cinq doigts
        l136-6: huit doigts; huits doigts
        l136-7: chromatic steps; degres chromatiques
        l136-10: sonorites opposees
        l136-11: arpeges composes
        l136-12: pour les accords
    """,
    "franck": """
        m21: prelude choral et fugue; prelude chorale et fugue; prel chor fug
    """,
    "handel": """
        hwv435: chaconne in g major
        hwv427: suite 2
        hwv428: suite 3
    """,
    "haydn": """
        hob16-20: sonata in c minor
        hob17-6: andante w var; andante with variations
    """,
    "janacek": """
        1-x-1905: sonata 1 x 1905; from the street; on the street
    """,
    "liszt": """
        s139-#: transcendental etude; d execution transcendante
        s139-3: paysage
        s139-4: mazeppa
        s139-5: feux follets
        s139-8: wilde jagd
        s139-9: ricordanza
        s139-11: harmonies du soir
        s139-12: chasse neige
        s141-#: etudes de paganini; paganini etude; etudes d apres paganini
        s141-3: campanella
        s144: trois etudes de concert
        s144-2: leggierezza
        s144-3: un sospiro
        s145-1: waldesrauschen
        s145-2: gnomenreigen
        s160-4: au bord d une source
        s161-5: sonetto 104
        s161-6: sonetto 123
        s161-7: lecture de dante; dante sonata
        s162: venezia e napoli
        s162-1: gondoliera
        s162-3: tarantella; tarantella venezia e napoli
        s163-4: villa d este
        s171: ballade 2
        s173-7: funerailles
        s178: sonata in b minor
        s213: valse impromptu
        s223-2: polonaise in e major
        s244-#: hungarian rhapsody
        s254: rhapsodie espagnole; rhapsody esp; spanish rhapsody
        s386: tarantelle di bravura; tarantelle di bravoura
        s407: faust
        s418: don juan
        s427-6: valse caprice 6; soirees de vienne 6
        s434: rigoletto
        s447: liebestod
        s514: mephisto waltz
        s555: danse macabre
    """,
    "mendelssohn": """
        op54: variations serieuses
        op61-1: midsummer night
    """,
    "mozart": """
        k179: menuet by fischer
        k279: sonata 1
        k280: sonata 2
        k281: sonata 3
        k282: sonata 4
        k283: sonata 5
        k284: sonata 6
        k309: sonata 7
        k310: sonata 8; sonata in a minor
        k311: sonata 9
        k330: sonata 10
        k331: sonata 11; alla turca; sonata in a major
        k332: sonata 12
        k333: sonata 13
        k457: sonata 14; sonata in c minor
        k545: sonata 15; sonata facile
        k570: sonata 16
        k576: sonata 17; sonata 18
        k573: minuet by duport
    """,
    "mussorgsky": """
        pictures-at-an-exhibition: pictures at an e
    """,
    "paganini": """
        liszt/s141-#: etude
    """,
    "rachmaninoff": """
        op3-1: elegie; elegy
        op16-1: moment musical in b flat minor
        op16-#: moments musicaux
        op28: sonata 1
        op36: sonata 2; sonata in b flat minor
        op42: corelli
        polka-de-wr: polka de w r
    """,
    "rimskykorsakov": """
        flight-of-the-bumblebee: flight of the bumble; flight of the bunble; flight of b b
    """,
    "scarlatti": """
        k87: = l33
    """,
    "schubert": """
        gretchen-am-spinnrade: gretchen am spinnrade
        erlkonig: erlkonig; erl king
        muller-und-bach: muller und der bach
        liszt/s427-6: caprice no 6 from soirees
        liszt/s558-9: horch horch; standchen von shakespeare
        d537: sonata in a minor; = op164
        d568: = op122
        d575: = op147
        d664: sonata in a major; = op120
        d760: wanderer; = op15
        d780-#: = op94
        d784: sonata in a minor; = op143
        d840: sonata in c major; reliquie
        d845: sonata in a minor; = op42
        d850: sonata in d major; = op53
        d894: sonata in g major; = op78
        d899-#: = op90
        d935-#: = op142
        d958: sonata in c minor
        d959: sonata in a major
        d960: sonata in b flat major
    """,
    "schumann": """
        op1: abegg
        op2: papillons
        op6: davidsbundler
        op9: carnaval
        op11: sonata 1; sonata in f sharp minor
        op13: symphonic etudes; etudes symphoniques
        op15: scenes from childhood; kinderszenen
        op16: kreisleriana
        op17: fantasy in c major
        op22: sonata 2; sonata in g minor
        op14: sonata 3
    """,
    "scriabin": """
        op6: sonata 1
        op19: sonata 2
        op23: sonata 3
        op30: sonata 4
        op53: sonata 5
        op62: sonata 6
        op64: sonata 7; white mass
        op66: sonata 8
        op68: sonata 9; black mass
        op70: sonata 10
        op28: fantasy in b minor
    """,
    "tchaikovsky": """
        op16-1: lullaby
        op37a-#: = op37b
        op59: dumka
        op72-5: meditation
        nutcracker-suite: nutcracker
    """,
}
