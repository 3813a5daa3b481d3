//! Regexes, choices and grammars: every answer of a random model keeps to them.

use qwen2vl_grammar::Format;
use qwen2vl_runtime::Constraint;

use crate::run::{IM_END, TOKENIZER, VOCAB_SIZE, answer, compile};

/// Seeds per format.
const SEEDS: u64 = 12;

fn check(format: &Format, is_right: impl Fn(&str) -> bool) {
    let grammar = compile(format).unwrap();
    let least = grammar.least_tokens();
    for seed in 0..SEEDS {
        let limit = least + [0, 1, 5, 60][(seed % 4) as usize];
        let answer = answer(&grammar, seed, limit, (seed % 3) as f32 * 30.0).unwrap();
        assert!(is_right(&answer.text), "{format:?}, seed {seed}, {limit} tokens: {:?}", answer.text);
        assert!(answer.generation.token_ids.len() <= limit);
    }
}

#[test]
fn answers_match_their_regex() {
    for regex in [
        "[a-z]+x",
        "[0-9]{2}/[0-9]{2}/[0-9]{4}",
        "(yes|no)(, because .{3,40})?",
        "(?s:.*)END",
        "a{20}b*",
        "ü+ß?(日本)*",
        "[A-F0-9]{8}(-[A-F0-9]{4}){3}",
        "a*b.*c.*d",
    ] {
        let whole = regex::Regex::new(&format!("^(?:{regex})$")).unwrap();
        check(&Format::Regex(regex.to_owned()), |text| whole.is_match(text));
    }
}

#[test]
fn answers_are_one_of_the_choices() {
    for choices in [
        vec!["cat", "dog"],
        vec!["cat", "category", "cat. And more"],
        vec!["a/b", "[x]", "(y) + z?", "q\"uote", "back\\slash", "new\nline", "#1", "größe", "<|im_end|>"],
        vec![" leading", "trailing "],
    ] {
        let choices: Vec<String> = choices.into_iter().map(str::to_owned).collect();
        check(&Format::Choice(choices.clone()), |text| choices.iter().any(|choice| choice == text));
    }
}

#[test]
fn answers_are_of_the_grammar() {
    let sum = Format::Lark(
        "start: number (\" + \" number)*\nnumber: /[0-9]{1,3}/ | \"(\" start \")\"\n".to_owned(),
    );
    check(&sum, |text| {
        let digits = regex::Regex::new(r"^[0-9]{1,3}( \+ [0-9]{1,3})*$").unwrap();
        let group = regex::Regex::new(r"\([0-9]{1,3}( \+ [0-9]{1,3})*\)").unwrap();
        let mut text = text.to_owned();
        while group.is_match(&text) {
            text = group.replace_all(&text, "1").into_owned();
        }
        digits.is_match(&text)
    });
    let list = Format::Lark("start: \"<\" item+ \">\"\nitem: /[a-z]+/ \";\"\n".to_owned());
    let shape = regex::Regex::new("^<([a-z]+;)+>$").unwrap();
    check(&list, |text| shape.is_match(text));
}

#[test]
fn forced_tokens_need_no_step_and_spell_what_is_forced() {
    let choice = Format::Choice(vec!["the only answer there is".to_owned()]);
    let answer = answer(&compile(&choice).unwrap(), 1, 50, 0.0).unwrap();
    assert_eq!((answer.text.as_str(), answer.decode_steps), ("the only answer there is", 0));
    assert!(answer.is_complete());
    assert_eq!(answer.generation.token_ids, TOKENIZER.encode("the only answer there is").unwrap());
}

#[test]
fn forks_go_on_by_themselves() {
    let grammar = compile(&Format::Choice(vec!["cat".to_owned(), "dog".to_owned()])).unwrap();
    let mut first = grammar.start(5, &[IM_END]).unwrap();
    let mut logits = vec![0.0; VOCAB_SIZE];
    let mut second = first.fork();
    for (constraint, animal) in [(&mut first as &mut dyn Constraint, "cat"), (second.as_mut(), "dog")] {
        let token = TOKENIZER.encode(animal).unwrap()[0];
        constraint.mask(&mut logits, 5).unwrap();
        assert!(logits[token as usize].is_finite() && logits[IM_END as usize] == f32::NEG_INFINITY);
        constraint.commit(token).unwrap();
        assert!(constraint.is_finished() && !constraint.closed_early());
        logits.fill(0.0);
    }
}
