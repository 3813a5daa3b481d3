//! Many turns with one model: what earlier turns computed is kept and never computed again.

use std::ops::ControlFlow;

use qwen2vl_runtime::{CancelToken, FinishReason, LanguageSession};
use qwen2vl_tokenizer::{EncodedPrompt, Message};
use qwen2vl_types::TokenId;

use crate::answer::{Asked, Embeddings};
use crate::options::one_answer;
use crate::render::render_turn;
use crate::{Annotation, Annotator, Error, MediaInfo, Request, RequestOptions};

/// A conversation in progress. Its answers are those of [`Annotator::annotate_messages`] with all of its messages.
///
/// Images and videos of any turn go through the vision tower once, and of the prompt only the tokens that the last turn
/// adds go through the language model. An answer whose text is not cut into tokens as it was generated is run again
/// from where they differ.
///
/// ```no_run
/// # fn main() -> Result<(), qwen2vl_pipeline::Error> {
/// use qwen2vl_pipeline::{Annotator, Request};
///
/// let annotator = Annotator::builder().model("qwen2-vl-2b-int4").build()?;
/// let mut conversation = annotator.conversation()?.system("Answer in one word.");
/// conversation.ask(&Request::question("What is this?").image("cat.jpg"))?;
/// let answer = conversation.ask(&Request::question("What color is it?"))?;
/// println!("{}, {} tokens known", answer.result, answer.cached_tokens);
/// # Ok(())
/// # }
/// ```
pub struct Conversation<'a> {
    annotator: &'a Annotator,
    session: Box<dyn LanguageSession + 'a>,
    /// The tokens that the session holds.
    held: Vec<TokenId>,
    system: Option<Message>,
    messages: Vec<Message>,
    /// Images of all turns, then videos of all turns.
    media: Vec<MediaInfo>,
    embeddings: Embeddings,
}

impl<'a> Conversation<'a> {
    pub(crate) fn new(annotator: &'a Annotator) -> Result<Self, Error> {
        Ok(Self {
            annotator,
            session: annotator.engine.session()?,
            held: Vec::new(),
            system: None,
            messages: Vec::new(),
            media: Vec::new(),
            embeddings: Embeddings::default(),
        })
    }

    /// Sets the system prompt, for a conversation that has no turn yet; without one the template's own is taken.
    #[must_use]
    pub fn system(mut self, text: impl Into<String>) -> Self {
        self.system = Some(Message::system(text));
        self.reset();
        self
    }

    /// What was said, the system prompt included where one was set.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Forgets all turns; the system prompt stays.
    pub fn reset(&mut self) {
        self.session.rewind(0);
        self.held.clear();
        self.messages = self.system.iter().cloned().collect();
        self.media.clear();
        self.embeddings = Embeddings::default();
    }

    /// Adds a turn and answers it: a question with the request's images and videos, or messages.
    ///
    /// # Errors
    ///
    /// As [`Annotator::run`], and [`Error::Turn`] for a verbatim prompt, which is no turn. The conversation is then as
    /// it was before.
    pub fn ask(&mut self, turn: &Request) -> Result<Annotation, Error> {
        self.ask_stream(turn, &CancelToken::new(), |_| ControlFlow::Continue(()))
    }

    /// As [`Conversation::ask`]; `on_delta` sees the answer as it grows and may end it, as `cancel` may. What is said
    /// until then stays part of the conversation; without a word of an answer the turn is taken back.
    ///
    /// # Errors
    ///
    /// As [`Conversation::ask`].
    pub fn ask_stream(
        &mut self,
        turn: &Request,
        cancel: &CancelToken,
        on_delta: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Annotation, Error> {
        let options = turn.options.or(&self.annotator.defaults);
        options.validate(self.annotator.processor.package())?;
        self.annotator.constraint(&options)?;
        let mut before =
            Before { messages: self.messages.len(), media: self.media.clone(), held_tokens: self.held.len() };
        let result = self.turn(turn, options, &mut before, cancel, on_delta);
        let said = result.as_ref().is_ok_and(|answer| {
            answer.finish_reason != FinishReason::Cancelled || !answer.token_ids.is_empty()
        });
        if let (true, Ok(answer)) = (said, &result) {
            self.messages.push(Message::assistant(&answer.result));
        } else {
            self.take_back(before);
        }
        result
    }

    fn turn(
        &mut self,
        turn: &Request,
        options: RequestOptions,
        before: &mut Before,
        cancel: &CancelToken,
        on_delta: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Annotation, Error> {
        let annotator = self.annotator;
        one_answer(&options.generation(&annotator.processor.package().generation), TURN)?;
        let rendered = render_turn(&annotator.processor.template, &mut self.messages, turn, &options)?;
        let cache = annotator.vision_cache.as_ref();
        let mut prepared = annotator.processor.prepare_rendered(rendered, &options, &self.media, cache)?;
        annotator.check_memory(&prepared, &options)?;
        let new = annotator.encode(&prepared, cancel)?;
        self.embeddings = Embeddings {
            images: std::mem::take(&mut self.embeddings.images).into_iter().chain(new.images).collect(),
            videos: std::mem::take(&mut self.embeddings.videos).into_iter().chain(new.videos).collect(),
            ..new
        };
        let earlier_images = self.media.iter().filter(|m| !m.is_video).count();
        let has_images = prepared.media.iter().any(|m| !m.is_video);
        self.media.append(&mut prepared.media);
        self.media.sort_by_key(|m| m.is_video);
        prepared.media.clone_from(&self.media);

        before.held_tokens = self.rewind_to_common(&prepared.encoded);
        let picture = if has_images { earlier_images + 1 } else { 1 };
        let asked = Asked { request: turn, options, prepared: &prepared, picture };
        let answer = annotator.answer(self.session.as_mut(), &asked, &self.embeddings, cancel, on_delta);
        match &answer {
            Ok(answer) => {
                self.held = prepared.encoded.input_ids;
                self.held.extend(&answer.token_ids);
                self.held.truncate(self.session.past_tokens());
            }
            // What a failed inference leaves behind is not known.
            Err(_) => {
                self.held.clear();
                self.session = annotator.engine.session()?;
            }
        }
        answer
    }

    /// Leaves in the session what the prompt begins with, without cutting an image or video in two; how many tokens
    /// that is.
    fn rewind_to_common(&mut self, encoded: &EncodedPrompt) -> usize {
        let ids = &encoded.input_ids;
        let vision = self.annotator.processor.tokenizer().vision_tokens();
        let is_pad = |id: &TokenId| [vision.image_pad, vision.video_pad].contains(id);
        let mut common = ids.iter().zip(&self.held).take_while(|(a, b)| a == b).count();
        // The last token is run in any case: its logits are wanted.
        common = common.min(ids.len().saturating_sub(1));
        while common > 0 && is_pad(&ids[common]) {
            common -= 1;
        }
        self.session.rewind(common);
        common
    }

    fn take_back(&mut self, before: Before) {
        self.messages.truncate(before.messages);
        let count = |is_video| before.media.iter().filter(|m| m.is_video == is_video).count();
        self.embeddings.images.truncate(count(false));
        self.embeddings.videos.truncate(count(true));
        self.media = before.media;
        // Another turn may have the same tokens for another image.
        self.held.truncate(before.held_tokens);
        self.session.rewind(self.held.len());
    }
}

/// What a conversation was before a turn.
struct Before {
    messages: usize,
    media: Vec<MediaInfo>,
    /// Tokens in the session that are not the turn's.
    held_tokens: usize,
}

/// Why a turn has one answer.
const TURN: &str = "1 in a conversation, whose next turn follows one answer";

impl std::fmt::Debug for Conversation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation")
            .field("messages", &self.messages)
            .field("held_tokens", &self.held.len())
            .finish_non_exhaustive()
    }
}
