//! voicepack
