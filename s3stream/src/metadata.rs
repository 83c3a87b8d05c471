//! Metadata: one pure state machine, replicated by a shared log.
