//! Rust text with comments, literals and test modules blanked, so that a rule sees code alone.
//!
//! Blanking keeps every line where it was: `blank(text).lines().count() == text.lines().count()`.
//! Not a parser: it knows comments, strings, characters, braces and identifiers, which is all that the rules ask for.

/// The code of a file: comments and the insides of literals are spaces.
pub(crate) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = skip(bytes, at);
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(
                bytes[at..end]
                    .iter()
                    .map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }),
            );
            at = end;
        }
    }
    String::from_utf8(out).expect("whole comments and literals were replaced")
}

/// The end of the comment or literal that starts at `at`; `at` itself where none does.
fn skip(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return at
            + rest
                .iter()
                .position(|byte| *byte == b'\n')
                .unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return at + block_comment(rest);
    }
    if rest[0] == b'"' {
        return at + quoted(rest, b'"');
    }
    if rest[0] == b'r' && (at == 0 || !is_word(bytes[at - 1]) || bytes[at - 1] == b'b') {
        return at + raw_string(rest);
    }
    if rest[0] == b'\'' && is_char(rest) {
        return at + quoted(rest, b'\'');
    }
    at
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let close: Vec<u8> = std::iter::once(b'"')
        .chain(std::iter::repeat_n(b'#', hashes))
        .collect();
    let body = 2 + hashes;
    let len = rest[body..]
        .windows(close.len())
        .position(|window| window == close);
    len.map_or(rest.len(), |len| body + len + close.len())
}

/// A character literal, not a lifetime.
fn is_char(rest: &[u8]) -> bool {
    match rest.get(1) {
        Some(b'\\') => true,
        Some(first) => {
            let len = match first {
                0xf0.. => 4,
                0xe0.. => 3,
                0xc0.. => 2,
                _ => 1,
            };
            rest.get(1 + len) == Some(&b'\'')
        }
        None => false,
    }
}

pub(crate) fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// The line of a byte, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

/// Every place of `word` in `code` that is not part of a longer identifier.
pub(crate) fn places(code: &str, word: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    let starts_free =
        |at: usize| at == 0 || !is_word(bytes[at - 1]) || !is_word(word.as_bytes()[0]);
    let ends_free =
        |end: usize| end == bytes.len() || !is_word(bytes[end]) || !is_word(bytes[end - 1]);
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|at| starts_free(*at) && ends_free(at + word.len()))
        .collect()
}

/// The identifier that starts at or after `at`, after spaces.
pub(crate) fn identifier(code: &str, at: usize) -> &str {
    let rest = code[at..].trim_start();
    let len = rest.bytes().take_while(|byte| is_word(*byte)).count();
    &rest[..len]
}

/// The end of the item whose head starts at `at`: past its `;`, or past the brace that closes its body.
pub(crate) fn item_end(code: &str, at: usize) -> usize {
    let (mut braces, mut brackets) = (0, 0);
    for (index, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets -= 1,
            b'{' => braces += 1,
            b'}' => {
                braces -= 1;
                if braces <= 0 && brackets <= 0 {
                    return index + 1;
                }
            }
            b';' if braces == 0 && brackets == 0 => return index + 1,
            _ => {}
        }
    }
    code.len()
}

/// Blanked code without the items that only tests see.
pub(crate) fn production(text: &str) -> String {
    let mut code = blank(text).into_bytes();
    for gate in ["#[cfg(test)]", "#[cfg(all(test,"] {
        let seen = String::from_utf8(code).expect("blanking keeps UTF-8");
        let ranges: Vec<_> = seen
            .match_indices(gate)
            .map(|(at, _)| (at, item_end(&seen, after_attribute(&seen, at))))
            .collect();
        code = seen.into_bytes();
        for (from, to) in ranges {
            code[from..to]
                .iter_mut()
                .filter(|byte| **byte != b'\n')
                .for_each(|byte| *byte = b' ');
        }
    }
    String::from_utf8(code).expect("whole items were replaced")
}

fn after_attribute(code: &str, at: usize) -> usize {
    let mut depth = 0;
    for (index, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'[' => depth += 1,
            b']' if depth == 1 => return index + 1,
            b']' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

#[test]
fn blanking_keeps_lines_and_hides_comments_strings_and_characters() {
    let text = "let a = \"x // y\"; // unsafe\nlet b = r#\"{\"#; /* { /* } */ */ let c = '{'; fn f<'a>() {}\n";
    let code = blank(text);
    assert_eq!(code.len(), text.len());
    assert!(!code.contains("unsafe") && !code.contains("//"), "{code}");
    assert_eq!(code.matches('{').count(), 1, "{code}");
    assert!(code.contains("fn f<'a>() {}"), "{code}");
}

#[test]
fn test_items_are_not_production() {
    let text =
        "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n#[cfg(test)]\nmod c;\nfn d() {}\n";
    let code = production(text);
    assert!(code.contains("fn a") && code.contains("fn d"), "{code}");
    assert!(!code.contains("fn b") && !code.contains("mod c"), "{code}");
}
