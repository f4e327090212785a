//! Where artefacts come from.
