//! Walks a request before the codec sees it: every length and count is checked against the bytes that remain.
//!
//! `kafka-protocol` allocates for a count before it reads the elements, so a forged count ends the process. After
//! [`check`] has returned `Ok(elements)`: every counted element is really there, and `elements <= ELEMENTS_MAX`.
//! It does not look at what fields mean, at UTF-8, or into record batches (the log validates those).

use super::schema::{Layout, Shape};

/// Most array elements and tagged fields of one request, all arrays together.
pub(crate) const ELEMENTS_MAX: usize = 65_536;
/// What an element may cost when decoded: the codec's largest structure is smaller.
pub(crate) const ELEMENT_BYTES: usize = 256;

/// Longest text.
const TEXT_BYTES_MAX: usize = i16::MAX as usize;

/// Why a request does not reach the codec.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// A length or count reaches past the end of the request.
    #[error("a length of {len} where {remaining} bytes remain")]
    Beyond {
        /// What the request says.
        len: usize,
        /// What is left of it.
        remaining: usize,
    },
    /// A length below -1.
    #[error("a negative length, {0}")]
    Negative(i32),
    /// A variable-length number of more than 32 bits.
    #[error("a variable-length number of more than 32 bits")]
    Overlong,
    /// A text that is longer than any version without compact lengths can have; Java's limit, too.
    #[error("a text of {0} bytes")]
    LongText(usize),
    /// More elements than any client asks for.
    #[error("more than {ELEMENTS_MAX} elements in one request")]
    TooMany,
    /// A known tagged field whose stated size is not its size.
    #[error("tagged field {tag} has {extra} bytes too many")]
    TaggedSize {
        /// The field.
        tag: u32,
        /// The bytes its value does not use.
        extra: usize,
    },
}

/// Checks `body` against `layout` and returns the number of elements it decodes to. Bytes after the last field are left
/// alone, as Kafka leaves them.
pub(crate) fn check(
    layout: &Layout,
    version: i16,
    flexible: bool,
    body: &[u8],
) -> Result<usize, Refusal> {
    let mut walk = Walk {
        rest: body,
        version,
        flexible,
        elements: 0,
    };
    walk.layout(layout)?;
    Ok(walk.elements)
}

/// Skips a section of tagged fields that the caller has no use for, and returns what follows it.
pub(crate) fn skip_tagged(bytes: &[u8]) -> Result<&[u8], Refusal> {
    let mut walk = Walk {
        rest: bytes,
        version: 0,
        flexible: true,
        elements: 0,
    };
    walk.tagged(&[])?;
    Ok(walk.rest)
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements: usize,
}

impl<'a> Walk<'a> {
    fn layout(&mut self, layout: &Layout) -> Result<(), Refusal> {
        for field in layout.fields {
            if (field.since..=field.until).contains(&self.version) {
                self.shape(&field.shape)?;
            }
        }
        if self.flexible {
            self.tagged(layout.tagged)?;
        }
        Ok(())
    }

    fn shape(&mut self, shape: &Shape) -> Result<(), Refusal> {
        match shape {
            Shape::Fixed(len) => self.take(*len).map(drop),
            Shape::Text => {
                let len = if self.flexible {
                    self.compact()?
                } else {
                    nullable(i32::from(i16::from_be_bytes(self.array()?)))?
                };
                let len = len.unwrap_or(0);
                if len > TEXT_BYTES_MAX {
                    return Err(Refusal::LongText(len));
                }
                self.take(len).map(drop)
            }
            Shape::Blob => {
                let len = self.long()?;
                self.take(len.unwrap_or(0)).map(drop)
            }
            Shape::Each(element) => {
                for _ in 0..self.count()? {
                    self.shape(element)?;
                }
                Ok(())
            }
            Shape::List(element) => {
                for _ in 0..self.count()? {
                    self.layout(element)?;
                }
                Ok(())
            }
            Shape::One(layout) => self.layout(layout),
            Shape::Maybe(layout) => {
                // As the codec: any other number says that there is none.
                let [there] = self.array()?;
                if there == 1 {
                    self.layout(layout)?;
                }
                Ok(())
            }
        }
    }

    fn tagged(&mut self, known: &[(u32, Shape)]) -> Result<(), Refusal> {
        let count = self.varint()? as usize;
        self.charge(count)?;
        for _ in 0..count {
            let tag = self.varint()?;
            let len = self.varint()? as usize;
            let value = self.take(len)?;
            if let Some((_, shape)) = known.iter().find(|(known, _)| *known == tag) {
                // The codec reads a known field by its shape and ignores the size: both must end at the same byte.
                let mut inside = Walk {
                    rest: value,
                    version: self.version,
                    flexible: self.flexible,
                    elements: self.elements,
                };
                inside.shape(shape)?;
                self.elements = inside.elements;
                if !inside.rest.is_empty() {
                    let extra = inside.rest.len();
                    return Err(Refusal::TaggedSize { tag, extra });
                }
            }
        }
        Ok(())
    }

    /// The count of an array; null counts as none.
    fn count(&mut self) -> Result<usize, Refusal> {
        let count = self.long()?.unwrap_or(0);
        self.charge(count)?;
        Ok(count)
    }

    /// Every element takes a byte at least, so a count above what remains is refused before the first is walked.
    fn charge(&mut self, count: usize) -> Result<(), Refusal> {
        if count > self.rest.len() {
            return Err(Refusal::Beyond {
                len: count,
                remaining: self.rest.len(),
            });
        }
        self.elements += count;
        if self.elements > ELEMENTS_MAX {
            return Err(Refusal::TooMany);
        }
        Ok(())
    }

    /// The length of bytes or the count of an array.
    fn long(&mut self) -> Result<Option<usize>, Refusal> {
        if self.flexible {
            self.compact()
        } else {
            nullable(i32::from_be_bytes(self.array()?))
        }
    }

    /// Compact lengths are one more than the length; 0 is null.
    fn compact(&mut self) -> Result<Option<usize>, Refusal> {
        Ok((self.varint()? as usize).checked_sub(1))
    }

    fn varint(&mut self) -> Result<u32, Refusal> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            // The fifth byte has room for four bits and no continuation.
            if shift == 28 && byte > 0x0f {
                return Err(Refusal::Overlong);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Ok(value)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Refusal::Beyond {
            len: N,
            remaining: self.rest.len(),
        })?;
        self.rest = rest;
        Ok(*head)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Refusal> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Refusal::Beyond {
            len,
            remaining: self.rest.len(),
        })?;
        self.rest = rest;
        Ok(head)
    }
}

fn nullable(len: i32) -> Result<Option<usize>, Refusal> {
    match len {
        -1 => Ok(None),
        len => usize::try_from(len)
            .map(Some)
            .map_err(|_| Refusal::Negative(len)),
    }
}

#[cfg(test)]
mod tests;
