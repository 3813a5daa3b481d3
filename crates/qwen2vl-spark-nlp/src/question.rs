//! From a row to what is asked: which images go together, and how the text is taken.

use qwen2vl_pipeline::{AlphaMode, DecodeLimits, PromptInput, Request, RequestOptions};

use crate::{AnnotationImage, Error};

/// What is asked where a row has no text, as Spark NLP writes it.
pub const DEFAULT_PROMPT: &str = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n\
    <|vision_start|><|image_pad|><|vision_end|>Describe this image.<|im_end|>\n<|im_start|>assistant\n";

/// The question in [`DEFAULT_PROMPT`].
pub const DEFAULT_QUESTION: &str = "Describe this image.";

/// One question of a row: which of its images it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question<'a> {
    /// The first one's index.
    pub image: usize,
    pub images: &'a [Option<AnnotationImage>],
    pub text: &'a str,
}

/// The questions of a row. Images are asked about together, unless their texts differ: each is asked about alone then.
pub(crate) fn questions(images: &[Option<AnnotationImage>]) -> Vec<Question<'_>> {
    let texts: Vec<&str> = images.iter().map(|i| i.as_ref().map_or("", |i| i.text.as_str())).collect();
    let given: Vec<&str> = texts.iter().copied().filter(|t| !t.trim().is_empty()).collect();
    let same = given.windows(2).all(|pair| pair[0] == pair[1]);
    if same {
        let text = given.first().copied().unwrap_or_default();
        return vec![Question { image: 0, images, text }];
    }
    let alone = images.chunks(1).zip(texts).enumerate();
    alone.map(|(image, (images, text))| Question { image, images, text }).collect()
}

impl Question<'_> {
    /// The request of it.
    ///
    /// # Errors
    ///
    /// [`Error::NullImage`], those of [`crate::SparkImage::to_input`], and [`Error::TaskInVerbatimPrompt`].
    pub fn request(&self, task: Option<&str>, options: &RequestOptions) -> Result<Request, Error> {
        let mut request = Request::new(prompt(self.text, task)?).options(options.clone());
        if let [Some(image)] = self.images
            && image.is_text_only()
        {
            return Ok(request);
        }
        if self.images.is_empty() {
            return Err(Error::NullImage);
        }
        for image in self.images {
            let image = image.as_ref().ok_or(Error::NullImage)?;
            request = request.image(image.image().to_input(&DecodeLimits::default(), AlphaMode::Drop)?);
        }
        Ok(request)
    }
}

/// A text with marks of the template, or with a placeholder, is a whole prompt, as all texts are in Spark NLP; any other
/// is a question, to which the model's template is applied. Without either, the default question is asked.
fn prompt(text: &str, task: Option<&str>) -> Result<PromptInput, Error> {
    let task = task.map(str::trim).filter(|task| !task.is_empty());
    let text_given = !text.trim().is_empty();
    if ["<|im_start|>", "<|image_pad|>"].iter().any(|mark| text.contains(mark)) {
        return match task {
            Some(_) => Err(Error::TaskInVerbatimPrompt),
            None => Ok(PromptInput::Raw(text.to_owned())),
        };
    }
    Ok(PromptInput::Question(match (task, text_given) {
        (Some(task), true) => format!("{task} {text}"),
        (Some(task), false) => task.to_owned(),
        (None, true) => text.to_owned(),
        (None, false) => DEFAULT_QUESTION.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PixelKind, SparkImage};

    fn image(text: &str) -> Option<AnnotationImage> {
        Some(AnnotationImage::new(SparkImage::new("", PixelKind::Grey, 1, 1, vec![0]), text))
    }

    #[test]
    fn images_with_questions_of_their_own_are_asked_about_alone() {
        let shape = |images: &[Option<AnnotationImage>]| {
            questions(images).iter().map(|q| (q.image, q.images.len(), q.text.to_owned())).collect::<Vec<_>>()
        };
        let row = |image, n, text: &str| (image, n, text.to_owned());
        assert_eq!(shape(&[image("a")]), [row(0, 1, "a")]);
        assert_eq!(shape(&[image(""), image("")]), [row(0, 2, "")]);
        assert_eq!(shape(&[image("a"), image("a")]), [row(0, 2, "a")]);
        assert_eq!(shape(&[image("a"), image(""), image("")]), [row(0, 3, "a")]);
        assert_eq!(shape(&[image("a"), image("b")]), [row(0, 1, "a"), row(1, 1, "b")]);
        assert_eq!(shape(&[image("a"), image("b"), None]), [row(0, 1, "a"), row(1, 1, "b"), row(2, 1, "")]);
        assert_eq!(shape(&[]), [row(0, 0, "")]);
    }

    #[test]
    fn texts_are_questions_unless_they_have_marks_of_the_template() {
        let question = |text: &str| PromptInput::Question(text.to_owned());
        let raw = |text: &str| PromptInput::Raw(text.to_owned());
        let placeholder = "<|image_pad|>What?";
        for (text, task, want) in [
            ("", None, question(DEFAULT_QUESTION)),
            (" \n", None, question(DEFAULT_QUESTION)),
            ("What?", None, question("What?")),
            ("What?", Some("Be brief."), question("Be brief. What?")),
            ("", Some("Count."), question("Count.")),
            (DEFAULT_PROMPT, None, raw(DEFAULT_PROMPT)),
            (placeholder, Some(" "), raw(placeholder)),
        ] {
            assert_eq!(prompt(text, task).unwrap(), want);
        }
        let error = prompt(placeholder, Some("Count.")).unwrap_err();
        assert!(matches!(error, Error::TaskInVerbatimPrompt) && error.kind() == "prompt");
    }
}
