//! Prompt tuning (Lester et al. 2021, arXiv:2104.08691): the model reads [P; E(x)] instead of E(x).
//!
//! P `[tokens, width]` trains and stands before the input embeddings E(x) of every sequence; the model is frozen. P starts
//! N(0, 0.02) or as rows of the word embeddings, so step 0 is not the base model. A text's prompt takes the positions
//! 0 .. p - 1, and pooled features are those of its first row, as in PEFT; an image's has no positions, and the class
//! token is pooled.

use fthost_plugin_api::prelude::*;

/// Options of prompt tuning.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct PromptConfig {
    /// Learned vectors before every sequence.
    #[schemars(range(min = 1), extend("search" = [5, 10, 20, 40]))]
    tokens: usize,
    /// How they start: "random", "vocabulary", or { text = "..." }.
    init: PromptInit,
    /// Whose row is pooled, "prompt" or "first_token"; without it PEFT's way for text, the first token for images.
    pool: Option<Pool>,
}

impl Default for PromptConfig {
    fn default() -> Self {
        Self { tokens: 20, init: PromptInit::Random, pool: None }
    }
}

/// How a prompt starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum PromptInit {
    /// N(0, 0.02)
    Random,
    /// Rows of the word embeddings, drawn without replacement
    Vocabulary,
    /// The word embeddings of this text's tokens, repeated to the prompt's length
    Text(String),
}

/// Which row of a sequence is pooled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Pool {
    /// The first of the prompt
    Prompt,
    /// The first of the sequence itself: [CLS]
    FirstToken,
}

struct PromptTuning {
    config: PromptConfig,
    /// What PEFT's adapter_config.json says, where PEFT computes the same.
    peft: Option<Value>,
}

impl Strategy for PromptTuning {
    type Config = PromptConfig;
    const PEFT_TYPE: Option<&'static str> = Some("PROMPT_TUNING");

    fn new(config: PromptConfig) -> Result<Self> {
        if config.tokens == 0 {
            return Err(Error::new("tokens is 0, so nothing would train: give at least 1"));
        }
        Ok(Self { config, peft: None })
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        let PromptConfig { tokens, ref init, pool } = self.config;
        let (width, reads_text) = (model.width()?, model.vocabulary()? > 0);
        let init = match init {
            PromptInit::Random => Init::Normal { mean: 0.0, std: 0.02 },
            _ if !reads_text => {
                let model_type = model.model_type()?;
                return Err(Error::new(format!("{model_type} has no word embeddings: give init = \"random\"")));
            }
            PromptInit::Vocabulary => Init::VocabularyRows,
            PromptInit::Text(text) => Init::TextRows { text: text.clone() },
        };
        let pool = pool.unwrap_or(if reads_text { Pool::Prompt } else { Pool::FirstToken });

        model.freeze_all()?;
        let rows = model.shared_param("prompt_embeddings", [tokens, width], init)?;
        for site in model.embeddings()? {
            model.hook_embeddings(&site, Prepend { rows: rows.clone(), pool_first_token: pool == Pool::FirstToken })?;
        }
        if reads_text && pool == Pool::Prompt {
            self.peft = Some(json!({
                "peft_type": "PROMPT_TUNING",
                "num_virtual_tokens": tokens,
                "token_dim": width,
                "num_layers": model.layers()?,
                "num_attention_heads": model.heads()?,
                "num_transformer_submodules": 1,
                "prompt_tuning_init": "RANDOM",
            }));
        }
        Ok(())
    }

    fn options_from_peft(config: &mut PeftConfig) -> Result<Value> {
        // How the prompt started; the shapes of the model, which the saved prompt has too.
        config.skip(&["prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"]);
        config.skip(&["token_dim", "num_layers", "num_attention_heads"]);
        if config.take::<usize>("num_transformer_submodules")?.is_some_and(|submodules| submodules != 1) {
            return Err(Error::new("num_transformer_submodules is not 1: only encoders alone get prompts here"));
        }
        Ok(json!({ "tokens": config.take::<usize>("num_virtual_tokens")?, "pool": Pool::Prompt }))
    }

    fn adapter_config(&self) -> Result<Option<Value>> {
        Ok(self.peft.clone())
    }
}

struct Prepend {
    rows: Param, // [tokens, width]
    pool_first_token: bool,
}

impl EmbeddingHook for Prepend {
    fn forward(&self, embeddings: Tensor, _offsets: &[u32]) -> Result<(Tensor, Option<Prompt>)> {
        let prompt = Prompt { rows: self.rows.tensor(), pool_first_token: self.pool_first_token };
        Ok((embeddings, Some(prompt)))
    }
}

register! {
    /// Prompt tuning: trains vectors that stand before the input embeddings of every sequence.
    Strategy "prompt" => PromptTuning
}
export_plugin! { license = "MIT OR Apache-2.0", ops = ["affine@1"] }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;
    use fthost_plugin_api::test::Host;

    #[test]
    fn init_is_a_word_or_a_text() {
        let init = |value: Value| from_value::<PromptConfig>(json!({ "init": value })).map(|config| config.init);
        for (value, expected) in [
            (json!("random"), PromptInit::Random),
            (json!("vocabulary"), PromptInit::Vocabulary),
            (json!({ "text": "good or bad" }), PromptInit::Text("good or bad".into())),
        ] {
            assert_eq!(init(value).unwrap(), expected);
        }
        assert!(init(json!("text")).is_err());
        assert!(init(json!({ "words": "good" })).is_err());
    }

    #[test]
    fn refuses_what_cannot_train() {
        for options in [json!({ "tokens": 0 }), json!({ "pool": "cls" }), json!({ "token": 8 })] {
            let made = from_value(options.clone()).map_err(Error::new).and_then(PromptTuning::new);
            assert!(made.is_err(), "{options}");
        }
    }

    #[test]
    fn learns_its_rows() {
        for options in [
            json!({ "tokens": 3 }),
            json!({ "tokens": 2, "init": "vocabulary", "pool": "first_token" }),
            json!({ "tokens": 4, "init": { "text": "good or bad" } }),
        ] {
            let run = Host::new().strategy::<PromptTuning>(options.clone()).unwrap();
            assert_eq!(run.trainable(), ["prompt_embeddings"]);
            run.check().unwrap_or_else(|error| panic!("{options}: {error}"));
        }
        Host::new().of_pictures().strategy::<PromptTuning>(json!({ "tokens": 2 })).unwrap().check().unwrap();
    }
}
