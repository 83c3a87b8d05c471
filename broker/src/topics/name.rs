//! Names of topics: `1 <= length <= 249`, letters, digits, `.`, `_` and `-`, and neither `.` nor `..`, as in Kafka.

/// Longest name, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 249;

/// What is wrong with `name`, if anything.
pub(crate) fn problem(name: &str) -> Option<String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() {
        Some("a topic's name is not empty".into())
    } else if name == "." || name == ".." {
        Some(format!("a topic cannot be named {name:?}"))
    } else if name.len() > NAME_BYTES_MAX {
        Some(format!(
            "a topic's name has at most {NAME_BYTES_MAX} characters, this one has {}",
            name.len()
        ))
    } else if !name.bytes().all(legal) {
        Some(format!(
            "topic name {name:?} has a character other than letters, digits, '.', '_' and '-'"
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_legal_or_the_problem_is_named() {
        let longest = "a".repeat(NAME_BYTES_MAX);
        for name in ["a", "A.b_c-9", "...", "__consumer_offsets", &longest] {
            assert_eq!(problem(name), None, "{name}");
        }
        let too_long = "a".repeat(NAME_BYTES_MAX + 1);
        for name in ["", ".", "..", "a/b", "a b", "ä", "a\0", "a:b", &too_long] {
            assert!(problem(name).is_some(), "{name}");
        }
    }
}
