//! Names and texts that people are shown: which characters they may hold, and which two names are the same.
//!
//! Lists, dialogs and logs show one organization's words to another. A word must not look like something that it is not, so
//! - what cannot be seen is refused: format characters (zero width, direction of writing), what fonts leave out, private and
//!   unassigned characters, separators of lines;
//! - joiners stay where a script needs them: ZWJ and ZWNJ between letters of Arabic, Indic and similar scripts, ZWJ and
//!   variation selectors in emoji. They do not count when names are compared;
//! - a word of letters from Latin and Cyrillic, or from one of them and Greek letters that look like theirs, is refused;
//! - two names are the same when they are so after NFKC, without case, without what cannot be seen, with any white space as
//!   one space.
//!
//! Two words of one alphabet each can still look alike (Cyrillic `ОРС`, Latin `OPC`): whom an agreement is made with is
//! known by the id of the organization.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// Why a text is not shown to others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A character that cannot be seen, or changes how others are read.
    #[error("holds U+{:04X}, which cannot be seen or changes how the rest is read: leave it out", number(.0))]
    Hidden(char),
    /// It would be drawn over what stands before the name.
    #[error("begins with a combining mark: begin with a letter")]
    Mark,
    /// Spaces and marks only.
    #[error("holds nothing that can be seen")]
    Blank,
    /// Letters that look like those of another alphabet.
    #[error("mixes alphabets in the word '{0}': letters of Latin, Cyrillic and Greek that look alike are not mixed")]
    Mixed(String),
}

fn number(c: &char) -> u32 {
    u32::from(*c)
}

/// Refuses a text with characters that cannot be seen. Control characters are the caller's to judge: a text may have lines.
pub fn check_text(text: &str) -> Result<(), Fault> {
    let mut before = None;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if is_hidden(c) && !joins(before, c, rest.peek().copied()) {
            return Err(Fault::Hidden(c));
        }
        before = Some(c);
    }
    Ok(())
}

/// The same text on one line and without what [`check_text`] refuses: for words of programs, which cannot be asked to choose others.
pub fn visible(text: &str) -> String {
    let mut kept = String::new();
    let mut before = None;
    let mut rest = text.chars().filter(|c| !c.is_control()).peekable();
    while let Some(c) = rest.next() {
        if !is_hidden(c) || joins(before, c, rest.peek().copied()) {
            kept.push(c);
            before = Some(c);
        }
    }
    kept
}

/// The same, and more, for a name: it can be seen, stands for itself, and no word of it mixes alphabets.
pub fn check_name(name: &str) -> Result<(), Fault> {
    check_text(name)?;
    let group = |c: char| c.general_category_group();
    if name.chars().next().is_some_and(|c| group(c) == GeneralCategoryGroup::Mark) {
        return Err(Fault::Mark);
    }
    let is_seen = |c: char| {
        matches!(
            group(c),
            GeneralCategoryGroup::Letter
                | GeneralCategoryGroup::Number
                | GeneralCategoryGroup::Punctuation
                | GeneralCategoryGroup::Symbol
        )
    };
    if !name.chars().any(is_seen) {
        return Err(Fault::Blank);
    }
    // Word by word first: `№` is a sign between words, and would be two letters of Latin.
    let ends_word = |c: char| !matches!(group(c), GeneralCategoryGroup::Letter | GeneralCategoryGroup::Mark);
    match name.split(ends_word).find(|word| is_mixed(&word.nfkc().collect::<String>())) {
        Some(word) => Err(Fault::Mixed(word.to_owned())),
        None => Ok(()),
    }
}

/// What is compared: two names are the same when this is.
pub fn fold(name: &str) -> String {
    let seen = name.chars().filter(|c| c.is_whitespace() || !is_hidden(*c));
    // By way of the capital letter: `ſ`, `ß` and `ς` have no small letter that is another's too.
    let folded: String = seen.nfkc().flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfkc().collect();
    folded.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_hidden(c: char) -> bool {
    let category = c.general_category();
    let is_nothing = matches!(
        category,
        GeneralCategory::Format
            | GeneralCategory::Surrogate
            | GeneralCategory::PrivateUse
            | GeneralCategory::Unassigned
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    );
    is_nothing || is_ignorable(c)
}

/// Unicode's `Default_Ignorable_Code_Point` where it is not a format character anyway, and the blank of Braille.
fn is_ignorable(c: char) -> bool {
    matches!(
        c,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Whether a hidden character is one that its neighbours need.
fn joins(before: Option<char>, c: char, after: Option<char>) -> bool {
    let Some(before) = before else { return false };
    let is_picture = |c: char| c.general_category() == GeneralCategory::OtherSymbol;
    match c {
        '\u{200c}' | '\u{200d}' if is_joined(before) => after.is_some_and(is_joined) || is_indic_mark(before),
        '\u{200d}' => {
            let is_varied = matches!(before, '\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}');
            (is_varied || is_picture(before)) && after.is_some_and(is_picture)
        }
        '\u{fe0e}' | '\u{fe0f}' => is_picture(before) || before.general_category() == GeneralCategory::MathSymbol,
        _ => false,
    }
}

/// A letter or mark of a script whose letters change with their neighbours.
fn is_joined(c: char) -> bool {
    let is_of_script = matches!(
        c,
        '\u{600}'..='\u{8ff}'
            | '\u{900}'..='\u{dff}'
            | '\u{1000}'..='\u{109f}'
            | '\u{1780}'..='\u{17ff}'
            | '\u{1800}'..='\u{18af}'
            | '\u{fb50}'..='\u{fdff}'
            | '\u{fe70}'..='\u{fefc}'
    );
    is_of_script && matches!(c.general_category_group(), GeneralCategoryGroup::Letter | GeneralCategoryGroup::Mark)
}

/// A virama may end a word with a joiner.
fn is_indic_mark(c: char) -> bool {
    matches!(c, '\u{900}'..='\u{dff}') && c.general_category() == GeneralCategory::NonspacingMark
}

fn is_mixed(word: &str) -> bool {
    let has = |is: fn(char) -> bool| word.chars().any(is);
    let (latin, cyrillic) = (has(is_latin), has(is_cyrillic));
    latin && cyrillic || (latin || cyrillic) && has(is_greek_that_looks_latin)
}

fn is_latin(c: char) -> bool {
    let is_of_script = matches!(c, 'A'..='Z' | 'a'..='z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}');
    is_of_script && c.is_alphabetic()
}

fn is_cyrillic(c: char) -> bool {
    matches!(c, '\u{400}'..='\u{52f}' | '\u{1c80}'..='\u{1c8f}' | '\u{2de0}'..='\u{2dff}' | '\u{a640}'..='\u{a69f}')
}

/// Not the letters of units and proteins (`µL`, `TNFα`, `NFκB`).
fn is_greek_that_looks_latin(c: char) -> bool {
    matches!(
        c,
        'Α' | 'Β'
            | 'Ε'
            | 'Ζ'
            | 'Η'
            | 'Ι'
            | 'Κ'
            | 'Μ'
            | 'Ν'
            | 'Ο'
            | 'Ρ'
            | 'Τ'
            | 'Υ'
            | 'Χ'
            | 'ο'
            | 'ν'
            | 'ι'
            | 'ρ'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_program_lose_what_cannot_be_seen_and_keep_what_scripts_and_pictures_need() {
        assert_eq!(visible("no\u{200b} path\r\n \u{202e}yet\u{2028}!"), "no path yet!");
        let joined = "\u{1f468}\u{200d}\u{1f469} \u{2699}\u{fe0f}";
        assert_eq!(visible(joined), joined);
        for text in ["a\u{200d}\u{200d}b", "\u{200d}", "\u{1f468}\u{200d}\u{200b}\u{1f469}", "\u{e0041}x"] {
            assert_eq!(check_text(&visible(text)), Ok(()), "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_refused_wherever_it_stands() {
        let hidden = [
            "Self\u{200b}",
            "Self\u{ad}",
            "Self\u{2060}",
            "\u{202e}fleS",
            "\u{200b}",
            "\u{feff}St. Mary",
            "\u{2066}St. Mary\u{2069}",
            "St.\u{2028}Mary",
            "\u{3164}",
            "\u{2800}",
            "a\u{e0041}",
            "a\u{e000}",
            "a\u{378}",
            "a\u{10ffff}",
            "a\u{200d}b",
            "a\u{200c}b",
            "a\u{fe0f}",
            "a\u{34f}b",
            "\u{200d}",
        ];
        for name in hidden {
            assert!(matches!(check_text(name), Err(Fault::Hidden(_))), "{name:?}");
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_text("St.\u{2028}Mary").unwrap_err().to_string().contains("U+2028"));
    }

    #[test]
    fn a_name_can_be_seen_and_stands_for_itself() {
        assert_eq!(check_name("\u{301}"), Err(Fault::Mark));
        assert_eq!(check_name("\u{301}lab"), Err(Fault::Mark));
        assert_eq!(check_name("\u{a0}\u{2003}"), Err(Fault::Blank));
        for name in ["S\u{435}lf", "Hοspital", "РHC", "Kлиника"] {
            assert!(matches!(check_name(name), Err(Fault::Mixed(_))), "{name:?}");
        }
    }

    #[test]
    fn the_names_of_the_world_are_names() {
        let names = [
            "St. Mary's",
            "Krankenhaus Straße 5",
            "Hôpital Saint-Louis",
            "Больница № 3",
            "ГБ№5",
            "IT-отдел",
            "Νοσοκομείο",
            "NFκB & TNFα, 5 µL",
            "بیمارستان می\u{200c}خواهم",
            "مستشفى",
            "בית חולים",
            "अस्पताल",
            "क\u{94d}\u{200d}ष",
            "ശ്രീ ന\u{d4d}\u{200d}",
            "โรงพยาบาล",
            "病院",
            "병원",
            "Klinik ❤\u{fe0f}",
            "👩\u{200d}⚕\u{fe0f} Lab",
            "Ａｃｍｅ",
            "#1",
        ];
        for name in names {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn two_names_that_look_the_same_are_the_same() {
        for (one, other) in [
            ("St. Mary", "st.  MARY"),
            ("St. Mary", "St.\u{a0}Mary"),
            ("Self", "ſelf"),
            ("Self", "Ｓｅｌｆ"),
            ("Self", "Self\u{200b}"),
            ("Straße", "STRASSE"),
            ("Hôpital", "Ho\u{302}pital"),
            ("ΟΔΟΣ", "οδος"),
            ("می\u{200c}خواهم", "میخواهم"),
        ] {
            assert_eq!(fold(one), fold(other), "{one:?} {other:?}");
        }
        assert_ne!(fold("St. Mary"), fold("St Mary"));
        for name in ["İstanbul", "ᾳ", "Straße", "ŉ", "ﬁ", "Ⅷ"] {
            assert_eq!(fold(&fold(name)), fold(name), "{name:?}");
        }
    }
}
