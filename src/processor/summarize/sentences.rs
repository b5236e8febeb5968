//! What a sentence and what a word is: the boundaries of Unicode's Standard Annex 29, and two corrections.
//!
//! The annex ends a sentence after "Dr." and "J." where a capital letter follows; titles and initials are joined to what
//! they belong to. It ends one with each line as well; here a line ends it only with a full stop or the like, or a blank
//! line after it. Other languages' abbreviations are not known.

use unicode_segmentation::UnicodeSegmentation;

/// Abbreviations after which a sentence goes on though a capital letter follows.
const ABBREVIATIONS: [&str; 16] = [
    "Dr.", "Mr.", "Mrs.", "Ms.", "Prof.", "St.", "Fig.", "No.", "vs.", "cf.", "e.g.", "i.e.", "Jr.", "Sr.",
    "Gen.", "Inc.",
];

/// What ends a sentence at the end of a line.
const ENDS: [char; 9] = ['.', '!', '?', '…', ':', '。', '！', '？', '؟'];

/// The sentences of a text, without the white space around them. A blank line ends one as well.
pub fn split(text: &str) -> Vec<&str> {
    let mut sentences = Vec::new();
    let mut paragraph_start = 0;
    let mut offset = 0;
    for line in text.split_inclusive('\n').chain(["\n"]) {
        if line.trim().is_empty() {
            split_paragraph(&text[paragraph_start..offset], &mut sentences);
            paragraph_start = (offset + line.len()).min(text.len());
        }
        offset = (offset + line.len()).min(text.len());
    }
    sentences
}

fn split_paragraph<'t>(text: &'t str, sentences: &mut Vec<&'t str>) {
    let mut start = 0;
    for (offset, piece) in text.split_sentence_bound_indices() {
        let end = offset + piece.len();
        let sentence = text[start..end].trim();
        let is_wrapped = piece.ends_with('\n') && !ends(sentence);
        if end < text.len() && (is_wrapped || goes_on(sentence)) {
            continue;
        }
        start = end;
        if sentence.unicode_words().next().is_some() {
            sentences.push(sentence);
        }
    }
}

/// Whether a line ends its sentence.
fn ends(line: &str) -> bool {
    line.trim_end_matches(['"', '\'', ')', ']', '”', '’', '»']).ends_with(ENDS)
}

/// Whether a sentence that seems to end here goes on, since it ends with a title or an initial.
fn goes_on(sentence: &str) -> bool {
    let last = sentence.rsplit(char::is_whitespace).next().unwrap_or_default();
    let last = last.trim_start_matches(|c: char| !c.is_alphanumeric());
    let mut letters = last.chars();
    let is_initial = matches!(
        (letters.next(), letters.next(), letters.next()),
        (Some(letter), Some('.'), None) if letter.is_uppercase()
    );
    is_initial || ABBREVIATIONS.contains(&last)
}

/// The words of a sentence, all in lower case.
pub fn words(sentence: &str) -> impl Iterator<Item = String> + '_ {
    sentence.unicode_words().map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("One. Two! Three?", &["One.", "Two!", "Three?"])]
    #[case("Dr. Jekyll met J. R. Hyde. They talked.", &["Dr. Jekyll met J. R. Hyde.", "They talked."])]
    #[case("It costs 3.50 today. Cheap!", &["It costs 3.50 today.", "Cheap!"])]
    #[case("A title\n\nIts text\ngoes on. And ends.", &["A title", "Its text\ngoes on.", "And ends."])]
    #[case("  \n\n ", &[])]
    #[case("...", &[])]
    #[case("Größe zählt. Ça va? 好的。再见。", &["Größe zählt.", "Ça va?", "好的。", "再见。"])]
    #[case("no end", &["no end"])]
    #[case("It was Dr.", &["It was Dr."])]
    fn sentences_end_where_a_reader_would_say(#[case] text: &str, #[case] sentences: &[&str]) {
        assert_eq!(split(text), sentences);
    }

    #[test]
    fn words_are_the_same_in_either_case() {
        assert_eq!(words("The ÖFEN, don't!").collect::<Vec<_>>(), ["the", "öfen", "don't"]);
    }
}
