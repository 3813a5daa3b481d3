//! Prompts with the chat template written out by hand, as Spark NLP's users write them: recognized, and given the
//! placeholders that they lack.

use crate::Error;

const IMAGE_PLACEHOLDER: &str = "<|image_pad|>";
const VIDEO_PLACEHOLDER: &str = "<|video_pad|>";

/// Begins a turn of the template.
const TURN: &str = "<|im_start|>";
/// Begins what the user says.
const USER_TURN: &str = "<|im_start|>user\n";

/// Whether a text is a prompt with its template, not a question.
pub(crate) fn is_written_out(text: &str) -> bool {
    text.contains(TURN)
}

/// The prompt with placeholders for media of which it has none, and a warning about it.
///
/// They go where the template puts them, before the first words of the user; images come before videos. A prompt that has
/// some, but another number, is left as it is: which of them are meant cannot be known.
///
/// # Errors
///
/// [`Error::NoPlaceholder`] in place of the warning where `strict`.
pub(crate) fn complete(
    prompt: &str,
    n_images: usize,
    n_videos: usize,
    strict: bool,
) -> Result<(String, Option<String>), Error> {
    let mut missing = String::new();
    let mut lacks = Vec::new();
    for (placeholder, n, kind) in
        [(IMAGE_PLACEHOLDER, n_images, "image"), (VIDEO_PLACEHOLDER, n_videos, "video")]
    {
        if n > 0 && !prompt.contains(placeholder) {
            missing += &format!("<|vision_start|>{placeholder}<|vision_end|>").repeat(n);
            lacks.push((placeholder, n, kind));
        }
    }
    let Some(&(placeholder, given, kind)) = lacks.first() else {
        return Ok((prompt.to_owned(), None));
    };
    if strict {
        return Err(Error::NoPlaceholder { placeholder, kind, given });
    }
    let at = prompt.find(USER_TURN).map_or(0, |start| start + USER_TURN.len());
    let (before, after) = prompt.split_at(at);
    let lacking: Vec<String> =
        lacks.iter().map(|(p, n, kind)| format!("no {p} for its {n} {kind}s")).collect();
    let warning = format!("the prompt has {}: put in front", lacking.join(" and "));
    Ok((format!("{before}{missing}{after}"), Some(warning)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "<|vision_start|><|image_pad|><|vision_end|>";
    const VIDEO: &str = "<|vision_start|><|video_pad|><|vision_end|>";

    #[test]
    fn what_is_missing_is_put_where_the_template_has_it() {
        let turns = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n";
        for (prompt, images, videos, want) in [
            ("Hello", 0, 0, "Hello".to_owned()),
            ("Hello", 1, 0, format!("{IMAGE}Hello")),
            ("", 2, 0, format!("{IMAGE}{IMAGE}")),
            ("Hi", 1, 1, format!("{IMAGE}{VIDEO}Hi")),
            (&format!("{turns}What?<|im_end|>\n"), 1, 0, format!("{turns}{IMAGE}What?<|im_end|>\n")),
            (&format!("{turns}{IMAGE}What?"), 1, 1, format!("{turns}{VIDEO}{IMAGE}What?")),
            // Too few are left to the check that counts them.
            (&format!("{IMAGE}a"), 2, 0, format!("{IMAGE}a")),
        ] {
            let (got, warning) = complete(prompt, images, videos, false).unwrap();
            assert_eq!(got, want);
            assert_eq!(warning.is_some(), got != prompt, "{warning:?}");
        }
    }

    #[test]
    fn strict_prompts_are_refused_with_what_they_lack() {
        assert!(complete("Hello", 0, 0, true).is_ok());
        let error = complete("Hello", 2, 0, true).unwrap_err();
        assert_eq!(error.kind(), "prompt");
        assert!(error.to_string().contains("<|image_pad|>") && error.to_string().contains('2'), "{error}");
    }

    #[test]
    fn only_prompts_with_a_template_are_taken_for_it() {
        assert!(is_written_out("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"));
        assert!(!is_written_out("What does <|image_pad|> mean?") && !is_written_out(""));
    }
}
