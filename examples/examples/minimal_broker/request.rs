//! A line of a client as a request.
//!
//! A name is 1 to [`NAME_LEN_MAX`] letters, digits, dots, dashes and underscores, so that it can be printed between spaces.

use s3stream::{Error, Result};

const NAME_LEN_MAX: usize = 100;

#[derive(Debug)]
pub(crate) enum Request<'a> {
    Create {
        name: &'a str,
    },
    Put {
        name: &'a str,
        text: &'a str,
    },
    Get {
        name: &'a str,
        offset: u64,
        count: u64,
    },
    Tail {
        name: &'a str,
        offset: u64,
    },
    List,
}

impl<'a> Request<'a> {
    pub(crate) fn parse(line: &'a str) -> Result<Self> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        Ok(match verb {
            "CREATE" => Self::Create { name: name(rest)? },
            "PUT" => {
                let (stream, text) = rest.split_once(' ').unwrap_or((rest, ""));
                Self::Put {
                    name: name(stream)?,
                    text,
                }
            }
            "GET" => {
                let [stream, offset, count] = words(rest)?;
                Self::Get {
                    name: name(stream)?,
                    offset: number(offset)?,
                    count: number(count)?,
                }
            }
            "TAIL" => {
                let [stream, offset] = words(rest)?;
                Self::Tail {
                    name: name(stream)?,
                    offset: number(offset)?,
                }
            }
            "LIST" if rest.is_empty() => Self::List,
            _ => return Err(Error::invalid("known are CREATE, PUT, GET, TAIL, LIST")),
        })
    }
}

fn words<const N: usize>(text: &str) -> Result<[&str; N]> {
    let words: Vec<_> = text.split(' ').collect();
    <[&str; N]>::try_from(words).map_err(|words| {
        Error::invalid("another number of words is needed")
            .with("found", words.len())
            .with("needed", N)
    })
}

fn name(text: &str) -> Result<&str> {
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.is_empty() || text.len() > NAME_LEN_MAX || !text.chars().all(usable) {
        return Err(Error::invalid(format!(
            "a name is 1 to {NAME_LEN_MAX} letters, digits, dots, dashes and underscores"
        )));
    }
    Ok(text)
}

fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|e| {
        Error::invalid("not a number")
            .with("text", text)
            .caused_by(e)
    })
}
