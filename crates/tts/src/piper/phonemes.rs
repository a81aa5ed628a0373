//! Phonemes by the espeak-ng port.
//!
//! The port keeps nothing between calls: each reads its data folder anew, and walks all of its 130 languages'
//! files several times, which is nearly all of a call's time. So a voice gets a folder with just the files of
//! its language: 0.6 ms a call instead of 5. The port has no state that threads could share, and what it said
//! of a text is remembered.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use espeak_ng::translate::{Translator, phoneme_ipa, select_phoneme_table};
use espeak_ng::{PhonemeCode, PhonemeData};

use super::script::Clause;

/// A language's phonemizer.
pub(super) struct Phonemizer {
    translator: Translator,
    phonemes: PhonemeData,
    folder: PathBuf,
    language: String,
    known: Mutex<HashMap<String, Arc<[Clause]>>>,
}

/// Texts remembered; when there are more, all are forgotten.
const MOST_KNOWN: usize = 2_000;
/// Longest text remembered, bytes.
const LONGEST_KNOWN: usize = 500;

impl Phonemizer {
    /// A phonemizer for espeak-ng's name of a language, such as `en-us`.
    ///
    /// # Errors
    /// What is missing, for a person.
    pub(super) fn new(language: &str) -> Result<Self, String> {
        let language = espeak_ng::translate::normalize_voice_tag(language);
        let folder = data::folder(&language)?;
        let open = || -> espeak_ng::Result<Phonemizer> {
            let mut phonemes = PhonemeData::load(&folder)?;
            select_phoneme_table(&mut phonemes, &folder, &language)?;
            Ok(Phonemizer {
                translator: Translator::new(&language, Some(&folder))?,
                phonemes,
                language: language.clone(),
                folder: folder.clone(),
                known: Mutex::default(),
            })
        };
        open().map_err(|e| {
            format!(
                "the phonemes of {language:?} in {} cannot be read: {e}",
                folder.display()
            )
        })
    }

    /// The clauses of a text.
    ///
    /// # Errors
    /// What the phonemizer says of it.
    pub(super) fn clauses(&self, text: &str) -> Result<Arc<[Clause]>, String> {
        // The lock is held for a look-up only, so a poisoned map is still whole.
        let known = || {
            self.known
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        };
        if let Some(clauses) = known().get(text) {
            return Ok(Arc::clone(clauses));
        }
        let plain = without_commands(text);
        let codes = self.translator.translate_to_codes(&plain).or_else(|_| {
            // Something may have emptied the folder, which lies in a cache, since it was filled.
            data::refill(&self.folder, &self.language)?;
            self.translator
                .translate_to_codes(&plain)
                .map_err(|e| e.to_string())
        })?;
        let ipa =
            phoneme_ipa::codes_to_ipa(&codes, &self.phonemes, &self.folder, &self.language, false);
        let clauses: Arc<[Clause]> = split(&ipa, &codes).into();
        if text.len() <= LONGEST_KNOWN {
            let mut known = known();
            if known.len() >= MOST_KNOWN {
                known.clear();
            }
            known.insert(text.to_owned(), Arc::clone(&clauses));
        }
        Ok(clauses)
    }
}

/// The text without what the phonemizer would take for a command ([[...]], control characters), and without
/// pictures, which it would describe.
fn without_commands(text: &str) -> String {
    let is_picture = |c| {
        matches!(c, '\u{2190}'..='\u{21ff}' | '\u{2300}'..='\u{27bf}' | '\u{2900}'..='\u{2bff}' | '\u{200d}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{1f000}'..='\u{1faff}' | '\u{e0000}'..='\u{e007f}')
    };
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => plain.push('\n'),
            '[' | ']' => plain.push(' '),
            c if c.is_control() || is_picture(c) => plain.push(' '),
            c => plain.push(c),
        }
    }
    plain
}

/// Parts the IPA of a whole text, a line a clause, into clauses, each with the mark that ends it.
fn split(ipa: &str, codes: &[PhonemeCode]) -> Vec<Clause> {
    let mut ends = codes
        .iter()
        .filter(|c| c.is_boundary && c.code == 0)
        .filter_map(|c| c.clause_char);
    let clauses = ipa.split('\n').map(|line| Clause {
        words: without_switches(line)
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        end: ends.next(),
    });
    clauses.collect()
}

/// Without the marks of a change of language, such as `(en)`.
fn without_switches(line: &str) -> String {
    let mut depth = 0usize;
    let keep = |c: &char| match c {
        '(' => {
            depth += 1;
            false
        }
        ')' => {
            depth = depth.saturating_sub(1);
            false
        }
        _ => depth == 0,
    };
    line.chars().filter(keep).collect()
}

/// The folder of espeak-ng data that holds one language.
mod data {
    use super::{Path, PathBuf};
    use std::fs;

    /// The language's folder in the user's cache, filled if it is not there.
    pub(super) fn folder(language: &str) -> Result<PathBuf, String> {
        let name = format!("espeak-ng-0.2-{language}");
        if !language
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-')
            || language.is_empty()
        {
            return Err(format!("{language:?} is no language of espeak-ng"));
        }
        let in_cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|p| p.is_absolute());
        let in_home = || std::env::home_dir().map(|h| h.join(".cache"));
        // Where there is no cache: a folder of this process, so that nobody else can have filled it.
        let own = std::env::temp_dir().join(format!("duologue-{}", std::process::id()));
        let roots = [
            in_cache.or_else(in_home).map(|c| c.join("duologue")),
            Some(own),
        ];
        let mut problem = String::new();
        for root in roots.into_iter().flatten() {
            let folder = root.join(&name);
            if folder.join("complete").is_file() {
                return Ok(folder);
            }
            match fill(&folder, language) {
                Ok(()) => return Ok(folder),
                Err(e) => problem = e,
            }
        }
        Err(problem)
    }

    /// Fills it again, whatever is in it.
    pub(super) fn refill(folder: &Path, language: &str) -> Result<(), String> {
        // If this fails, so does what follows, and tells why.
        let _ = fs::remove_file(folder.join("complete"));
        fill(folder, language)
    }

    /// Fills it, without ever showing others a half-filled one.
    fn fill(folder: &Path, language: &str) -> Result<(), String> {
        let stem = language.split('-').next().unwrap_or_default();
        if !espeak_ng::has_bundled_language(stem) {
            let built_in = espeak_ng::bundled_languages().join(", ");
            return Err(format!(
                "phonemes for {language:?} are not built in (there are: {built_in}); build with the feature \
                 bundled-data-{stem} of the crate espeak-ng"
            ));
        }
        let failed = |what: &Path, e: std::io::Error| {
            format!(
                "cannot write phoneme data to {}: {e}; free some space or set XDG_CACHE_HOME",
                what.display()
            )
        };
        let parent = folder.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(|e| failed(parent, e))?;
        let staging = parent.join(format!(
            ".{}-{}-{:?}",
            folder.file_name().unwrap_or_default().to_string_lossy(),
            std::process::id(),
            std::thread::current().id(),
        ));
        let made = espeak_ng::install_bundled_language(&staging, stem)
            .and_then(|()| strip(&staging, language, stem))
            .and_then(|()| fs::write(staging.join("complete"), ""))
            .map_err(|e| failed(&staging, e));
        let placed = made.and_then(|()| {
            // An incomplete one stands in the way of the rename.
            if folder.exists() && !folder.join("complete").is_file() {
                fs::remove_dir_all(folder).map_err(|e| failed(folder, e))?;
            }
            match fs::rename(&staging, folder) {
                // Another thread was faster.
                Err(_) if folder.join("complete").is_file() => Ok(()),
                other => other.map_err(|e| failed(folder, e)),
            }
        });
        if staging.exists() {
            // What is left of a failure; nothing depends on its removal.
            let _ = fs::remove_dir_all(&staging);
        }
        placed
    }

    /// Takes out all that phonemes of this language do not need: other languages, and sound.
    fn strip(folder: &Path, language: &str, stem: &str) -> std::io::Result<()> {
        for unneeded in ["voices", "mbrola_ph"] {
            remove(&folder.join(unneeded))?;
        }
        remove(&folder.join("phondata"))?;
        let mut open = vec![folder.join("lang")];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(&dir)? {
                let path = entry?.path();
                if path.is_dir() {
                    open.push(path);
                } else if !describes(
                    &fs::read_to_string(&path).unwrap_or_default(),
                    &[language, stem],
                ) {
                    fs::remove_file(path)?;
                }
            }
        }
        // Emptied folders cost time too; one that is not empty stays.
        for entry in fs::read_dir(folder.join("lang"))? {
            let _ = fs::remove_dir(entry?.path());
        }
        Ok(())
    }

    /// Whether a voice file names one of these languages.
    fn describes(voice_file: &str, languages: &[&str]) -> bool {
        let named = voice_file
            .lines()
            .filter_map(|l| l.strip_prefix("language")?.split_whitespace().next());
        named
            .map(str::to_ascii_lowercase)
            .any(|l| languages.contains(&l.as_str()))
    }

    fn remove(path: &Path) -> std::io::Result<()> {
        match (path.is_dir(), path.exists()) {
            (true, _) => fs::remove_dir_all(path),
            (false, true) => fs::remove_file(path),
            (false, false) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn clauses(text: &str) -> Vec<(String, Option<char>)> {
        let phonemizer = Phonemizer::new("en-us").unwrap();
        let clauses = phonemizer.clauses(text).unwrap();
        assert_eq!(
            clauses,
            phonemizer.clauses(text).unwrap(),
            "remembered otherwise than said"
        );
        clauses.iter().map(|c| (c.words.join(" "), c.end)).collect()
    }

    #[test]
    fn clauses_keep_the_marks_that_end_them() {
        let found = clauses("Hello there, friend. Are you?");
        let ends: Vec<_> = found.iter().filter_map(|c| c.1).collect();
        assert_eq!(ends, [',', '.', '?']);
        assert_eq!(found[0].0, "həlˈoʊ ðˈɛɹ");
        assert_eq!(found[1].0, "fɹˈɛnd");
    }

    #[test]
    fn commands_in_a_text_are_not_obeyed() {
        for text in [
            "hello [[h@l'oU]] there",
            "hello \u{1}999s there",
            "hello 🙂 there",
        ] {
            let words: Vec<_> = clauses(text).into_iter().map(|c| c.0).collect();
            assert!(words.concat().starts_with("həlˈoʊ"), "{text:?}: {words:?}");
            assert!(!words.concat().contains("fˈeɪs"), "{text:?}: {words:?}");
        }
    }

    #[test]
    fn a_language_that_is_not_built_in_is_named() {
        for unknown in ["xx", "../../etc", ""] {
            let told = Phonemizer::new(unknown).err().unwrap();
            assert!(told.contains(unknown), "{told}");
        }
    }

    #[test]
    fn data_that_vanish_are_put_back() {
        let phonemizer = Phonemizer::new("en-gb").unwrap();
        let before = phonemizer.clauses("one").unwrap();
        std::fs::remove_file(phonemizer.folder.join("phontab")).unwrap();
        assert_eq!(phonemizer.clauses("two").unwrap().len(), before.len());
    }

    #[test]
    fn threads_get_the_same_phonemes() {
        let phonemizer = Phonemizer::new("en-us").unwrap();
        let texts: Vec<String> = (0..40)
            .map(|n| format!("Sentence number {n}, said again."))
            .collect();
        let alone: Vec<_> = texts
            .iter()
            .map(|t| Phonemizer::new("en-us").unwrap().clauses(t).unwrap())
            .collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for (text, expected) in texts.iter().zip(&alone) {
                        assert_eq!(&phonemizer.clauses(text).unwrap(), expected);
                    }
                });
            }
        });
    }
}
