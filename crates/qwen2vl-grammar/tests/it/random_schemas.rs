//! Random schemas and seeds: every answer ends within its tokens and is valid.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use qwen2vl_grammar::Format;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::run::{answer, compile};
use crate::schema_gen::Generator;

/// Says how many runs there are, instead of those that fit into a build's tests.
const ENV_RUNS: &str = "QWEN2VL_GRAMMAR_RUNS";
const RUNS: u64 = 1500;

#[derive(Default)]
struct Tally {
    complete: u64,
    closed: u64,
    refused: u64,
    not_compiled: u64,
    tokens: usize,
    decode_steps: usize,
    times: Vec<Duration>,
    failures: Vec<String>,
    reasons: BTreeMap<String, u64>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.complete += other.complete;
        self.closed += other.closed;
        self.refused += other.refused;
        self.not_compiled += other.not_compiled;
        self.tokens += other.tokens;
        self.decode_steps += other.decode_steps;
        self.times.extend(other.times);
        self.failures.extend(other.failures);
        for (reason, n) in other.reasons {
            *self.reasons.entry(reason).or_default() += n;
        }
    }
}

#[test]
fn random_answers_to_random_schemas_end_and_are_valid() {
    let runs = std::env::var(ENV_RUNS).ok().map_or(RUNS, |runs| runs.parse().unwrap());
    let started = Instant::now();
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(4) as u64;
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| {
                scope.spawn(move || {
                    let mut tally = Tally::default();
                    (part..runs).step_by(threads as usize).for_each(|seed| run(seed, &mut tally));
                    tally
                })
            })
            .collect();
        for part in parts {
            tally.add(part.join().unwrap());
        }
    });
    tally.times.sort_unstable();
    let at = |share: f64| tally.times[(tally.times.len() as f64 * share) as usize].as_micros();
    println!(
        "{runs} runs in {:.1} s: {} complete, {} closed early, {} refused as the tokens do not suffice, {} schemas \
         refused, {} failed\n{} tokens in {} steps; a mask takes {} µs (median), {} µs (90 %), {} µs (99 %), {} µs (most)",
        started.elapsed().as_secs_f64(),
        tally.complete,
        tally.closed,
        tally.refused,
        tally.not_compiled,
        tally.failures.len(),
        tally.tokens,
        tally.decode_steps,
        at(0.5),
        at(0.9),
        at(0.99),
        tally.times.last().unwrap().as_micros(),
    );
    for (reason, n) in &tally.reasons {
        println!("{n} × {reason}");
    }
    assert!(tally.failures.is_empty(), "{}", tally.failures.join("\n"));
    assert_eq!(tally.not_compiled, 0, "the generated schemas all have instances");
    for (what, n) in [("complete", tally.complete), ("closed", tally.closed), ("refused", tally.refused)] {
        assert!(n * 50 >= runs, "{what}: {n} of {runs}, too few to prove anything");
    }
}

fn run(seed: u64, tally: &mut Tally) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let schema = Generator { rng: &mut rng }.schema();
    let started = Instant::now();
    let grammar = match compile(&Format::JsonSchema(schema.clone())) {
        Ok(grammar) => grammar,
        Err(error) => {
            tally.not_compiled += 1;
            let text = format!("{error} {schema}");
            *tally.reasons.entry(text).or_default() += 1;
            return;
        }
    };
    let compiled = started.elapsed();
    if compiled > Duration::from_secs(10) {
        tally.failures.push(format!("seed {seed}: compiled in {compiled:?}: {schema}"));
    }
    let needed = grammar.least_tokens();
    // From too few to plenty.
    let max_new_tokens = match rng.random_range(0..8) {
        0 => needed.saturating_sub(rng.random_range(1..4)),
        1 => needed,
        2 => needed + rng.random_range(0..4),
        _ => needed + rng.random_range(0..200),
    };
    let eager_to_end = [0.0, 60.0][rng.random_range(0..2)];
    if max_new_tokens < needed {
        let error = answer(&grammar, seed, max_new_tokens, 0.0).err().unwrap_or_default();
        if !error.contains(&format!("at least {needed}")) {
            tally.failures.push(format!("seed {seed}: {max_new_tokens} of {needed} tokens gave {error:?}"));
        }
        tally.refused += 1;
        return;
    }
    if let Err(problem) = check(&schema, &grammar, seed, max_new_tokens, eager_to_end, tally) {
        tally
            .failures
            .push(format!("seed {seed}, {max_new_tokens} of {needed} tokens: {problem}\n  {schema}"));
    }
}

fn check(
    schema: &Value,
    grammar: &qwen2vl_grammar::Grammar,
    seed: u64,
    max_new_tokens: usize,
    eager_to_end: f32,
    tally: &mut Tally,
) -> Result<(), String> {
    let answer = answer(grammar, seed, max_new_tokens, eager_to_end)?;
    let tokens = answer.generation.token_ids.len();
    if tokens > max_new_tokens {
        return Err(format!("{tokens} tokens"));
    }
    let value: Value = serde_json::from_str(&answer.text).map_err(|e| format!("{e}: {}", answer.text))?;
    let validator = jsonschema::options().should_validate_formats(true).build(schema);
    let validator = validator.map_err(|e| e.to_string())?;
    validator.validate(&value).map_err(|e| format!("{e}: {}", answer.text))?;
    if answer.is_complete() {
        tally.complete += 1;
    } else {
        tally.closed += 1;
    }
    tally.tokens += tokens;
    tally.decode_steps += answer.decode_steps;
    tally.times.extend(answer.times);
    Ok(())
}
