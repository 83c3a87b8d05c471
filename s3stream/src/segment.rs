//! Slices and segments: generic pieces of a log on streams.
