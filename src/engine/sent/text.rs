//! Where text may be cut: not within a character.

/// How many bytes at the beginning of `data` belong to the character that `held` ends with the beginning of.
pub fn completes(held: &[u8], data: &[u8]) -> usize {
    if incomplete_character(held) == 0 {
        return 0;
    }
    data.iter().take(3).take_while(|byte| **byte & 0b1100_0000 == 0b1000_0000).count()
}

/// The length of a UTF-8 character's beginning at the end of `data`, whose rest has not come.
pub fn incomplete_character(data: &[u8]) -> usize {
    (1..=data.len().min(3))
        .find(|length| {
            let begun = &data[data.len() - length..];
            std::str::from_utf8(begun)
                .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_never_split() {
        let text = "aé€😀".as_bytes();

        let incomplete: Vec<usize> = (1..=text.len()).map(|end| incomplete_character(&text[..end])).collect();

        assert_eq!(incomplete, [0, 1, 0, 1, 2, 0, 1, 2, 3, 0]);
    }

    #[test]
    fn bytes_that_are_no_text_are_not_held_back() {
        assert_eq!(incomplete_character(&[0x80, 0x80, 0x80, 0x80]), 0);
        assert_eq!(incomplete_character(&[0xff]), 0);
        assert_eq!(incomplete_character(b""), 0);
    }

    #[test]
    fn what_completes_a_character_ends_with_it() {
        let euro = "€".as_bytes();

        assert_eq!(completes(&euro[..1], &[&euro[1..], b"abc"].concat()), 2);
        assert_eq!(completes(euro, &euro[1..]), 0);
    }
}
