//! English numbers in words.

const ONES: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = [
    "", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
];
const SCALES: [(u64, &str); 5] = [
    (1_000_000_000_000_000, "quadrillion"),
    (1_000_000_000_000, "trillion"),
    (1_000_000_000, "billion"),
    (1_000_000, "million"),
    (1_000, "thousand"),
];

/// `1234`: "one thousand two hundred thirty-four".
pub(super) fn cardinal(mut n: u64) -> String {
    if n == 0 {
        return ONES[0].to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    for (scale, name) in SCALES {
        if n >= scale {
            words.push(cardinal(n / scale));
            words.push(name.to_owned());
            n %= scale;
        }
    }
    if n >= 100 {
        words.push(format!("{} hundred", ONES[(n / 100) as usize]));
        n %= 100;
    }
    if n > 0 {
        words.push(below_hundred(n));
    }
    words.join(" ")
}

fn below_hundred(n: u64) -> String {
    match n {
        0..20 => ONES[n as usize].to_owned(),
        _ if n.is_multiple_of(10) => TENS[(n / 10) as usize].to_owned(),
        _ => format!("{}-{}", TENS[(n / 10) as usize], ONES[(n % 10) as usize]),
    }
}

/// `21`: "twenty-first".
pub(super) fn ordinal(n: u64) -> String {
    let words = cardinal(n);
    let at = words.rfind([' ', '-']).map_or(0, |at| at + 1);
    let (head, last) = words.split_at(at);
    let last = match last {
        "one" => "first".to_owned(),
        "two" => "second".to_owned(),
        "three" => "third".to_owned(),
        "five" => "fifth".to_owned(),
        "eight" => "eighth".to_owned(),
        "nine" => "ninth".to_owned(),
        "twelve" => "twelfth".to_owned(),
        _ => match last.strip_suffix('y') {
            Some(stem) => format!("{stem}ieth"),
            None => format!("{last}th"),
        },
    };
    format!("{head}{last}")
}

/// `1995`: "nineteen ninety-five". For 1100 to 2099; other numbers as [`cardinal`].
pub(super) fn year(n: u64) -> String {
    let (century, rest) = (n / 100, n % 100);
    match (century, rest) {
        (20, 0..10) => cardinal(n),
        (11..=20, 0) => format!("{} hundred", below_hundred(century)),
        (11..=20, 1..10) => format!("{} oh {}", below_hundred(century), ONES[rest as usize]),
        (11..=20, _) => format!("{} {}", below_hundred(century), below_hundred(rest)),
        _ => cardinal(n),
    }
}

/// `007`: "zero zero seven".
pub(super) fn digits(text: &str) -> String {
    let words: Vec<&str> = text
        .chars()
        .filter_map(|c| c.to_digit(10))
        .map(|d| ONES[d as usize])
        .collect();
    words.join(" ")
}

/// The plural of a word for a number: "sixty" gives "sixties".
pub(super) fn plural(words: &str) -> String {
    match words.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if words.ends_with('x') => format!("{words}es"),
        None => format!("{words}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cardinals() {
        for (n, words) in [
            (0, "zero"),
            (13, "thirteen"),
            (40, "forty"),
            (99, "ninety-nine"),
            (100, "one hundred"),
            (1_001, "one thousand one"),
            (12_345, "twelve thousand three hundred forty-five"),
            (1_000_000, "one million"),
            (2_500_000_000, "two billion five hundred million"),
        ] {
            assert_eq!(cardinal(n), words);
        }
    }

    #[test]
    fn ordinals() {
        for (n, words) in [
            (1, "first"),
            (2, "second"),
            (12, "twelfth"),
            (20, "twentieth"),
            (21, "twenty-first"),
            (100, "one hundredth"),
            (103, "one hundred third"),
            (8, "eighth"),
            (45, "forty-fifth"),
        ] {
            assert_eq!(ordinal(n), words);
        }
    }

    #[test]
    fn years() {
        for (n, words) in [
            (1066, "one thousand sixty-six"),
            (1905, "nineteen oh five"),
            (1900, "nineteen hundred"),
            (1995, "nineteen ninety-five"),
            (2000, "two thousand"),
            (2007, "two thousand seven"),
            (2025, "twenty twenty-five"),
        ] {
            assert_eq!(year(n), words);
        }
    }

    #[test]
    fn every_number_has_words() {
        assert!(cardinal(u64::MAX).contains("quadrillion"));
        assert_eq!(plural(&cardinal(80)), "eighties");
        assert_eq!(digits("007"), "zero zero seven");
    }
}
