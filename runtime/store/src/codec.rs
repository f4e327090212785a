//! The one codec file.
