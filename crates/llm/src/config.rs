//! Which model answers, and how.
//!
//! The two kinds are one tagged enum, so that a configuration file names a kind and gives only what it needs.

use std::path::PathBuf;
use std::time::Duration;

use duologue_voicepack::Voicepack;
use serde::Deserialize;

use crate::LlmError;

/// Instructions for a model whose words will be spoken.
pub const DEFAULT_INSTRUCTIONS: &str = "You are a helpful voice assistant, talking with somebody. Everything you \
write is spoken aloud. Answer in one to three short, plain sentences, the way people talk. Do not use lists, \
headings, code or emoji unless you are asked for them. If you did not understand, say so and ask.";

/// Which model answers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LlmConfig {
    /// An OpenAI-compatible endpoint: Ollama, vLLM, llama.cpp's server, a cloud.
    Endpoint(EndpointConfig),
    /// A GGUF file in this process.
    Embedded(EmbeddedConfig),
}

/// An OpenAI-compatible endpoint.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointConfig {
    /// Where the API begins, such as `http://127.0.0.1:11434/v1`; `/chat/completions` is added.
    pub url: String,
    /// The key itself. Better kept out of files: see `api_key_env`.
    pub api_key: Option<String>,
    /// Environment variable that holds the key.
    pub api_key_env: String,
    /// The model's name at that endpoint.
    pub model: String,
    /// Seconds allowed for the connection.
    pub connect_timeout_s: f32,
    /// Seconds allowed without a byte: before the first token, and between pieces.
    pub idle_timeout_s: f32,
    /// How often a request is sent again when it failed before the first token in a way that may pass
    /// (no connection, 429, 5xx).
    pub retries: u32,
    /// The longest wait before a retry, seconds; an endpoint that asks for more is not waited for.
    pub max_retry_wait_s: f32,
    /// Default for [`crate::ChatRequest::temperature`].
    pub temperature: Option<f32>,
    /// Default for [`crate::ChatRequest::max_tokens`].
    pub max_tokens: Option<u32>,
}

// Written by hand so that no log ever shows the key.
impl std::fmt::Debug for EndpointConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointConfig")
            .field("url", &self.url)
            .field("model", &self.model)
            .field("api_key", &self.api_key.as_ref().map(|_| "..."))
            .finish_non_exhaustive()
    }
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:11434/v1".to_owned(),
            api_key: None,
            api_key_env: "OPENAI_API_KEY".to_owned(),
            model: String::new(),
            connect_timeout_s: 5.0,
            idle_timeout_s: 30.0,
            retries: 2,
            max_retry_wait_s: 5.0,
            temperature: None,
            max_tokens: None,
        }
    }
}

/// A GGUF file run by llama.cpp in this process.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// The GGUF file, or a folder with one in it.
    pub path: PathBuf,
    /// What the model is called; empty is the file's own name.
    pub name: String,
    /// Tokens that one conversation and its reply may have together, 256 up to what the model was trained on.
    pub context: u32,
    /// Conversations whose cache is kept. More may talk; the one that was silent longest is read anew when it
    /// speaks again. Each holds `context` tokens of cache: 48 MiB for a 0.5B model at 4,096.
    pub slots: u32,
    /// Requests that may wait for a slot; one more is refused.
    pub queue: usize,
    /// Threads that write a reply; 0 is one less than there are physical cores. llama.cpp's threads wait for each
    /// other busily at every step: when another program (or the voice) takes the core of one, all stand still. A
    /// core left free costs a little speed on a quiet machine and saves most of it on a busy one.
    pub threads: u32,
    /// Threads that read a prompt; 0 is one for each physical core.
    pub prefill_threads: u32,
    /// Layers on the GPU, where built with one; more than the model has means all.
    pub gpu_layers: u32,
    /// Tokens read at once. A cancelled request is noticed, and another conversation served, between them.
    pub prefill_batch: u32,
    /// Length of a reply where the request does not say, tokens.
    pub max_tokens: u32,
    /// 0.0 always takes the likeliest token.
    pub temperature: f32,
    /// Nucleus sampling: the likeliest tokens that together have this probability.
    pub top_p: f32,
    /// Tokens less likely than this part of the likeliest are left out.
    pub min_p: f32,
    /// Above 1.0 makes recently used tokens less likely.
    pub repeat_penalty: f32,
    /// Seed where the request has none; `None` takes a new one for each reply.
    pub seed: Option<u32>,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            name: String::new(),
            context: 4096,
            slots: 2,
            queue: 16,
            threads: 0,
            prefill_threads: 0,
            gpu_layers: u32::MAX,
            prefill_batch: 32,
            max_tokens: 512,
            temperature: 0.7,
            top_p: 0.9,
            min_p: 0.05,
            repeat_penalty: 1.05,
            seed: None,
        }
    }
}

impl EmbeddedConfig {
    /// The model of a voicepack, called by the voicepack's name; the rest as by default.
    pub fn of_voicepack(voicepack: &Voicepack) -> Self {
        Self {
            path: voicepack.dir.clone(),
            name: voicepack.name.clone(),
            ..Self::default()
        }
    }
}

impl LlmConfig {
    /// The endpoint that the environment names, if it does: `DUOLOGUE_LLM_URL` or else `OPENAI_BASE_URL`, with
    /// `DUOLOGUE_LLM_MODEL` and the key from `DUOLOGUE_LLM_API_KEY` or else `OPENAI_API_KEY`.
    ///
    /// # Errors
    /// [`LlmError::Config`] when there is an address but no model.
    pub fn from_env() -> Result<Option<Self>, LlmError> {
        Self::from_vars(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, LlmError> {
        let Some(url) = var("DUOLOGUE_LLM_URL").or_else(|| var("OPENAI_BASE_URL")) else {
            return Ok(None);
        };
        let Some(model) = var("DUOLOGUE_LLM_MODEL") else {
            return Err(LlmError::Config(format!(
                "the environment names the language model endpoint {url} but no model: set DUOLOGUE_LLM_MODEL"
            )));
        };
        let api_key = var("DUOLOGUE_LLM_API_KEY").or_else(|| var("OPENAI_API_KEY"));
        Ok(Some(Self::Endpoint(EndpointConfig {
            url,
            model,
            api_key,
            ..EndpointConfig::default()
        })))
    }
}

/// Seconds from a configuration, as a duration.
pub(crate) fn seconds(value: f32) -> Duration {
    Duration::try_from_secs_f32(value).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn vars<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            pairs
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        }
    }

    #[test]
    fn an_empty_environment_names_no_endpoint() {
        assert_eq!(
            LlmConfig::from_vars(vars(&[("OPENAI_API_KEY", "k")])).unwrap(),
            None
        );
    }

    #[test]
    fn our_own_variables_win_over_the_customary_ones() {
        let config = LlmConfig::from_vars(vars(&[
            ("OPENAI_BASE_URL", "http://a/v1"),
            ("DUOLOGUE_LLM_URL", "http://b/v1"),
            ("DUOLOGUE_LLM_MODEL", "m"),
            ("OPENAI_API_KEY", "k"),
        ]));
        let Some(LlmConfig::Endpoint(endpoint)) = config.unwrap() else {
            panic!("no endpoint")
        };
        assert_eq!(
            (endpoint.url.as_str(), endpoint.model.as_str()),
            ("http://b/v1", "m")
        );
        assert_eq!(endpoint.api_key.as_deref(), Some("k"));
    }

    #[test]
    fn an_address_without_a_model_is_told() {
        let error = LlmConfig::from_vars(vars(&[("OPENAI_BASE_URL", "http://a/v1")])).unwrap_err();
        assert!(error.to_string().contains("DUOLOGUE_LLM_MODEL"), "{error}");
    }

    #[test]
    fn a_configuration_names_its_kind_and_only_what_it_needs() {
        let read = |text| serde_json::from_str::<LlmConfig>(text);
        let config = read(r#"{"kind": "endpoint", "url": "http://a/v1", "model": "m"}"#).unwrap();
        assert!(matches!(config, LlmConfig::Endpoint(endpoint) if endpoint.retries == 2));
        let config = read(r#"{"kind": "embedded", "path": "a.gguf"}"#).unwrap();
        assert!(matches!(config, LlmConfig::Embedded(embedded) if embedded.context == 4096));
        let error = read(r#"{"kind": "embedded", "pth": "a.gguf"}"#).unwrap_err();
        assert!(error.to_string().contains("pth"), "{error}");
    }

    #[test]
    fn the_key_is_not_in_the_debug_text() {
        let config = EndpointConfig {
            api_key: Some("sk-secret".into()),
            ..EndpointConfig::default()
        };
        assert!(!format!("{config:?}").contains("secret"));
    }
}
