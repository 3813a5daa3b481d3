//! How answers are chosen and where they end, as flags. Spark NLP's names are taken as well.

use clap::Args;
use qwen2vl_pipeline::{EarlyStopping, RequestOptions, TokenId};

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Generation")]
pub struct GenerationArgs {
    /// The most tokens an answer may have
    #[arg(long, value_name = "N", alias = "max-output-length", env = "QWEN2VL_MAX_NEW_TOKENS")]
    pub max_new_tokens: Option<usize>,
    /// No stop token ends an answer before it has this many tokens; stop strings still do [default: the model's]
    #[arg(long, value_name = "N", alias = "min-output-length", env = "QWEN2VL_MIN_NEW_TOKENS")]
    pub min_new_tokens: Option<usize>,
    /// The most tokens a prompt may have, those of its images included; a longer one is an error, never cut
    #[arg(long, value_name = "N", alias = "max-input-length", env = "QWEN2VL_MAX_INPUT_TOKENS")]
    pub max_input_tokens: Option<usize>,
    /// Draw from the distribution instead of taking the most probable token [default: the model's]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", env = "QWEN2VL_DO_SAMPLE")]
    pub do_sample: Option<bool>,
    /// Divides the logits before drawing [default: the model's]
    #[arg(long, value_name = "X", env = "QWEN2VL_TEMPERATURE", allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// Draw among the K most probable tokens; 0 is all [default: the model's]
    #[arg(long, value_name = "K", env = "QWEN2VL_TOP_K")]
    pub top_k: Option<usize>,
    /// Draw among the most probable tokens up to this mass [default: the model's]
    #[arg(long, value_name = "P", env = "QWEN2VL_TOP_P")]
    pub top_p: Option<f32>,
    /// Draw among the tokens at least P times as probable as the most probable one; 0 is all [default: the model's]
    #[arg(long, value_name = "P", env = "QWEN2VL_MIN_P")]
    pub min_p: Option<f32>,
    /// Seed of the draws: the same seed gives the same answer, whatever else is asked
    #[arg(long, value_name = "N", alias = "random-seed", env = "QWEN2VL_SEED")]
    pub seed: Option<u64>,
    /// Follow N answers at once and take the best (beam search); 1 is off [default: the model's]
    #[arg(long, value_name = "N", alias = "beam-size", env = "QWEN2VL_NUM_BEAMS")]
    pub num_beams: Option<usize>,
    /// With beams: above 0 longer answers win, below 0 shorter ones [default: the model's]
    #[arg(long, value_name = "X", env = "QWEN2VL_LENGTH_PENALTY", allow_negative_numbers = true)]
    pub length_penalty: Option<f32>,
    /// With beams: whether the search ends as soon as N answers have ended: true, false or never [default: the model's]
    #[arg(long, value_name = "WHEN", env = "QWEN2VL_EARLY_STOPPING")]
    pub early_stopping: Option<EarlyStopping>,
    /// Answers to each input: drawn ones, or at most as many as there are beams; those behind the first stand in the
    /// rows of --format jsonl as "alternatives"
    #[arg(long, value_name = "N", alias = "n-return-sequences", env = "QWEN2VL_NUM_RETURN_SEQUENCES")]
    pub num_return_sequences: Option<usize>,
    /// Penalty on tokens already in prompt or answer; 1 is off [default: the model's]
    #[arg(long, value_name = "X", env = "QWEN2VL_REPETITION_PENALTY", allow_negative_numbers = true)]
    pub repetition_penalty: Option<f32>,
    /// Taken once from the logits of tokens already in the answer; -2 to 2, 0 is off
    #[arg(long, value_name = "X", env = "QWEN2VL_PRESENCE_PENALTY", allow_negative_numbers = true)]
    pub presence_penalty: Option<f32>,
    /// Taken from the logits of tokens as often as the answer has them; -2 to 2, 0 is off
    #[arg(long, value_name = "X", env = "QWEN2VL_FREQUENCY_PENALTY", allow_negative_numbers = true)]
    pub frequency_penalty: Option<f32>,
    /// No run of N tokens comes twice in prompt and answer together; 0 is off [default: the model's]
    #[arg(long, value_name = "N", env = "QWEN2VL_NO_REPEAT_NGRAM_SIZE")]
    pub no_repeat_ngram_size: Option<usize>,
    /// Token ids that are never chosen, with commas between them
    #[arg(
        long,
        value_name = "IDS",
        value_delimiter = ',',
        alias = "ignore-token-ids",
        env = "QWEN2VL_SUPPRESS_TOKENS"
    )]
    pub suppress_tokens: Option<Vec<TokenId>>,
    /// Added to the logits of single tokens, with commas between them: 123=-5,7=1.5
    #[arg(long, value_name = "ID=X", value_delimiter = ',', value_parser = parse_bias, env = "QWEN2VL_LOGIT_BIAS")]
    pub logit_bias: Option<Vec<(TokenId, f32)>>,
    /// Token ids that end an answer, with commas between them [default: the model's]
    #[arg(long, value_name = "IDS", value_delimiter = ',', env = "QWEN2VL_STOP_TOKEN_IDS")]
    pub stop_token_ids: Option<Vec<TokenId>>,
    /// A text that ends an answer, which keeps what is before it; may be given several times, the variable holds one
    #[arg(
        long,
        value_name = "TEXT",
        alias = "stop",
        env = "QWEN2VL_STOP_STRINGS",
        allow_hyphen_values = true
    )]
    pub stop_strings: Option<Vec<String>>,
    /// Guess up to N tokens from what stood in prompt or answer before and check them in one step: the same answer, sooner
    /// where it repeats what was there; 0 is off [default: a few where they cost nothing]
    #[arg(long, value_name = "N", env = "QWEN2VL_PROMPT_LOOKUP_NUM_TOKENS")]
    pub prompt_lookup_num_tokens: Option<usize>,
    /// With prompt lookup: the most tokens that have to have stood there before
    #[arg(long, value_name = "N", env = "QWEN2VL_MAX_MATCHING_NGRAM_SIZE")]
    pub max_matching_ngram_size: Option<usize>,
    /// Add log-probabilities of the answer's tokens to the rows of --format jsonl, and at each of the N most probable
    /// ones
    #[arg(long, value_name = "N", env = "QWEN2VL_LOGPROBS")]
    pub logprobs: Option<usize>,
}

impl GenerationArgs {
    /// Puts the given ones into a request's options.
    pub fn fill(&self, options: &mut RequestOptions) {
        options.max_new_tokens = self.max_new_tokens;
        options.min_new_tokens = self.min_new_tokens;
        options.max_input_tokens = self.max_input_tokens;
        options.do_sample = self.do_sample;
        options.temperature = self.temperature;
        options.top_k = self.top_k;
        options.top_p = self.top_p;
        options.min_p = self.min_p;
        options.seed = self.seed;
        options.num_beams = self.num_beams;
        options.length_penalty = self.length_penalty;
        options.early_stopping = self.early_stopping;
        options.num_return_sequences = self.num_return_sequences;
        options.repetition_penalty = self.repetition_penalty;
        options.presence_penalty = self.presence_penalty;
        options.frequency_penalty = self.frequency_penalty;
        options.no_repeat_ngram_size = self.no_repeat_ngram_size;
        options.suppress_tokens = self.suppress_tokens.clone();
        options.logit_bias = self.logit_bias.as_ref().map(|list| list.iter().copied().collect());
        options.stop_token_ids = self.stop_token_ids.clone();
        options.stop_strings = self.stop_strings.clone();
        options.prompt_lookup_num_tokens = self.prompt_lookup_num_tokens;
        options.max_matching_ngram_size = self.max_matching_ngram_size;
        options.logprobs = self.logprobs;
    }
}

fn parse_bias(text: &str) -> Result<(TokenId, f32), String> {
    let parsed = text
        .split_once('=')
        .and_then(|(id, bias)| Some((id.trim().parse().ok()?, bias.trim().parse().ok()?)));
    parsed.ok_or_else(|| "expected a token id and what is added to its logit, for example 123=-5".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        generation: GenerationArgs,
    }

    fn options(arguments: &str) -> Result<RequestOptions, String> {
        let flags = Flags::try_parse_from(std::iter::once("x").chain(arguments.split_whitespace()));
        let mut options = RequestOptions::default();
        flags.map_err(|e| e.to_string())?.generation.fill(&mut options);
        Ok(options)
    }

    #[test]
    fn every_flag_reaches_its_option() {
        let mut want = RequestOptions::default();
        want.max_new_tokens = Some(9);
        want.min_new_tokens = Some(2);
        want.max_input_tokens = Some(100);
        want.do_sample = Some(true);
        want.temperature = Some(0.5);
        want.top_k = Some(3);
        want.top_p = Some(0.25);
        want.min_p = Some(0.125);
        want.seed = Some(7);
        want.num_beams = Some(4);
        want.length_penalty = Some(-0.5);
        want.early_stopping = Some(EarlyStopping::Never);
        want.num_return_sequences = Some(2);
        want.repetition_penalty = Some(1.5);
        want.presence_penalty = Some(-0.5);
        want.frequency_penalty = Some(-1.0);
        want.no_repeat_ngram_size = Some(4);
        want.suppress_tokens = Some(vec![1, 2, 3]);
        want.logit_bias = Some([(4, -5.0), (5, 1.5)].into());
        want.stop_token_ids = Some(vec![6]);
        want.stop_strings = Some(vec!["a,b".to_owned(), "--".to_owned()]);
        want.prompt_lookup_num_tokens = Some(5);
        want.max_matching_ngram_size = Some(3);
        want.logprobs = Some(0);
        let hugging_face = "--max-new-tokens 9 --min-new-tokens 2 --max-input-tokens 100 --do-sample --temperature 0.5 \
                            --top-k 3 --top-p 0.25 --min-p 0.125 --seed 7 --repetition-penalty 1.5 \
                            --num-beams 4 --length-penalty -0.5 --early-stopping never --num-return-sequences 2 \
                            --presence-penalty -0.5 --frequency-penalty -1 --no-repeat-ngram-size 4 \
                            --suppress-tokens 1,2 --suppress-tokens 3 --logit-bias 4=-5,5=1.5 --stop-token-ids 6 \
                            --stop-strings a,b --stop-strings -- --logprobs 0 \
                            --prompt-lookup-num-tokens 5 --max-matching-ngram-size 3";
        assert_eq!(options(hugging_face).unwrap(), want);
        let spark = hugging_face
            .replace("max-new-tokens", "max-output-length")
            .replace("min-new-tokens", "min-output-length")
            .replace("max-input-tokens", "max-input-length")
            .replace("suppress-tokens", "ignore-token-ids")
            .replace("--num-beams", "--beam-size")
            .replace("--num-return-sequences", "--n-return-sequences")
            .replace("--seed", "--random-seed");
        assert_eq!(options(&spark).unwrap(), want);
        assert_eq!(options("").unwrap(), RequestOptions::default());
    }

    #[test]
    fn what_is_no_value_is_refused_with_an_example() {
        for bad in ["123", "a=1", "1=b", "-1=2", "=", "4294967296=1"] {
            let error = options(&format!("--logit-bias={bad}")).unwrap_err();
            assert!(error.contains("123=-5") && error.contains("--logit-bias"), "{error}");
        }
        let error = options("--early-stopping soon").unwrap_err();
        assert!(error.contains("true, false or") && error.contains("--early-stopping"), "{error}");
        assert!(options("--suppress-tokens 1,x").unwrap_err().contains("--suppress-tokens"));
    }
}
