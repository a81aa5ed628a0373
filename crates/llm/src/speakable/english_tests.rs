use super::*;

/// Every word of `text` with its neighbours.
fn read(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let said: Vec<String> = (0..words.len())
        .map(|i| {
            say(
                words[i],
                i.checked_sub(1).map(|p| words[p]),
                words.get(i + 1).copied(),
            )
        })
        .filter(|said| !said.is_empty())
        .collect();
    said.join(" ")
}

fn check(cases: &[(&str, &str)]) {
    for (written, said) in cases {
        assert_eq!(read(written), *said, "for {written:?}");
    }
}

#[test]
fn numbers_are_read_as_quantities() {
    check(&[
        ("1,000 people", "one thousand people"),
        ("3.14", "three point one four"),
        ("-5 or −5", "minus five or minus five"),
        ("0.5", "zero point five"),
        ("2500000", "two million five hundred thousand"),
        ("007", "zero zero seven"),
        ("It is 42.", "It is forty-two."),
        ("5k 3M 2x", "five thousand three million two times"),
        ("18+", "eighteen plus"),
    ]);
}

#[test]
fn years_decades_and_ordinals_are_read_as_such() {
    check(&[
        ("in 1995, then", "in nineteen ninety-five, then"),
        ("1500 meters", "one thousand five hundred meters"),
        ("the 1990s and 80s", "the nineteen nineties and eighties"),
        ("1st 2nd 21st 12th", "first second twenty-first twelfth"),
    ]);
}

#[test]
fn dates_and_times() {
    check(&[
        ("May 5, 2025", "May fifth, twenty twenty-five"),
        ("on 5 May", "on the fifth of May"),
        ("2025-03-04", "March fourth, twenty twenty-five"),
        ("3/4/2025", "March fourth, twenty twenty-five"),
        ("Sept. 3", "September third"),
        (
            "3:30 3:05 3:00 14:30",
            "three thirty three oh five three o'clock fourteen thirty",
        ),
        ("3:30pm", "three thirty P M"),
        ("at 5 p.m.", "at five P M."),
        ("5pm", "five P M"),
        ("12:30:15", "twelve thirty and fifteen seconds"),
    ]);
}

#[test]
fn money_and_percent() {
    check(&[
        (
            "$5 $1 $5.50 $0.99",
            "five dollars one dollar five dollars and fifty cents ninety-nine cents",
        ),
        ("€1,200.00", "one thousand two hundred euros"),
        ("£3.01", "three pounds and one penny"),
        ("$5M", "five million dollars"),
        ("$1.5 million more", "one point five million dollars more"),
        ("$10-20", "ten to twenty dollars"),
        ("5€", "five euros"),
        (
            "$19.99/month or $5/yr",
            "nineteen dollars and ninety-nine cents per month or five dollars per year",
        ),
        ("3/week", "three per week"),
        ("50% 12.5%", "fifty percent twelve point five percent"),
        ("50 %", "fifty percent"),
    ]);
}

#[test]
fn units_beside_and_apart() {
    check(&[
        (
            "5km 1km 5 km",
            "five kilometers one kilometer five kilometers",
        ),
        ("90 km/h", "ninety kilometers per hour"),
        (
            "20°C -3°C",
            "twenty degrees Celsius minus three degrees Celsius",
        ),
        ("16GB", "sixteen gigabytes"),
        ("5 minutes", "five minutes"),
        ("I am", "I am"),
    ]);
}

#[test]
fn ranges_fractions_versions_and_telephones() {
    check(&[
        ("10-20", "ten to twenty"),
        ("1990–1995", "nineteen ninety to nineteen ninety-five"),
        (
            "1/2 3/4 2/3 24/7",
            "one half three quarters two thirds twenty-four seven",
        ),
        ("1.2.3", "one point two point three"),
        ("v2.1 911", "version two point one nine one one"),
        ("555-1234", "five five five, one two three four"),
        (
            "1920x1080",
            "one thousand nine hundred twenty by one thousand eighty",
        ),
        ("a 5-year plan", "a five year plan"),
    ]);
}

#[test]
fn abbreviations_are_words() {
    check(&[
        ("Dr. Smith and Mrs. Jones", "Doctor Smith and Missus Jones"),
        ("apples, pears, etc.", "apples, pears, et cetera."),
        ("e.g. this, i.e. that", "for example this, that is that"),
        ("No. 5", "number five"),
        ("No. Never.", "No. Never."),
        (
            "St. Peter lives on Main St. today",
            "Saint Peter lives on Main Street today",
        ),
        ("the U.S. team", "the U S team"),
        ("w/o", "without"),
    ]);
}

#[test]
fn signs_addresses_and_mixtures() {
    check(&[
        ("salt & pepper", "salt and pepper"),
        ("2 + 2 = 4", "two plus two equals four"),
        ("ann.lee@example.com", "ann dot lee at example dot com"),
        ("example.com, now", "example dot com, now"),
        ("MP3 GPT-4 3D H2O", "MP three GPT four three D H two O"),
        (
            "and/or snake_case #1 #tag",
            "and or snake case number one tag",
        ),
        ("@¡", "at"),
        ("don't well-known U.S", "don't well-known U.S"),
    ]);
}

#[test]
fn what_ends_a_sentence_and_what_does_not() {
    assert_eq!(abbreviation("Dr."), Some(Ends::Never));
    assert_eq!(abbreviation("etc."), Some(Ends::Maybe));
    assert_eq!(abbreviation("J."), Some(Ends::Never));
    assert_eq!(abbreviation("I."), None);
    assert_eq!(abbreviation("end."), None);
}
