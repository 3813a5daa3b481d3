//! From prepared inputs to an annotation: vision tower, token loop, text, boxes.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use qwen2vl_preprocess::PixelValues;
use qwen2vl_runtime::{
    CancelToken, Constraint, FinishReason, Generation, LanguageSession, Prompt, VisionEmbeddings,
    generate_all,
};
use qwen2vl_tokenizer::{EncodedPrompt, Message};
use qwen2vl_types::TokenId;

use crate::boxes::question_picture;
use crate::media::Known;
use crate::stop::{self, StopStrings};
use crate::vision_cache::Found;
use crate::{
    Alternative, Annotation, Annotator, AnswerBoxes, BoxForms, Error, Prepared, PreparedVideo, PromptInput,
    Request, RequestOptions, Times, logprobs,
};

/// What is to be answered.
pub(crate) struct Asked<'a> {
    pub request: &'a Request,
    /// The request's options over the annotator's.
    pub options: RequestOptions,
    pub prepared: &'a Prepared,
    /// The picture, counted from 1, that is meant where neither question nor answer names one.
    pub picture: usize,
}

/// What the language model sees of all images and videos of a prompt.
#[derive(Default)]
pub(crate) struct Embeddings {
    pub images: Vec<VisionEmbeddings>,
    pub videos: Vec<VisionEmbeddings>,
    /// Of those of the last turn, how many were known.
    pub known: usize,
    /// The vision tower's time for those of the last turn.
    pub time: Duration,
    /// Time of decoding the frames of the last turn's videos meanwhile.
    pub decode: Duration,
    /// Time of resizing them.
    pub resize: Duration,
    /// What could not be decoded of the last turn's videos.
    pub warnings: Vec<String>,
}

impl Annotator {
    /// Runs the vision tower on prepared media, where the vision cache does not know what it gives; frames of videos are
    /// decoded meanwhile. Ends early when cancelled, as the answer will.
    pub(crate) fn encode(&self, prepared: &Prepared, cancel: &CancelToken) -> Result<Embeddings, Error> {
        let started = Instant::now();
        let mut embeddings = Embeddings::default();
        for (i, pixels) in prepared.images.iter().enumerate() {
            if cancel.is_cancelled() {
                return Ok(embeddings);
            }
            let known = prepared.known.get(i).cloned().unwrap_or_default();
            let found = self.encode_image(pixels, known, cancel);
            let Some(found) = unless_cancelled(found, cancel)? else { return Ok(embeddings) };
            embeddings.known += usize::from(found.was_known);
            embeddings.images.push(found.embeddings);
        }
        for video in &prepared.videos {
            let found = self.encode_video(video, &mut embeddings, cancel);
            let Some(found) = unless_cancelled(found, cancel)? else { return Ok(embeddings) };
            embeddings.known += usize::from(found.was_known);
            embeddings.videos.push(found.embeddings);
        }
        if !prepared.media.is_empty() {
            let frames = embeddings.decode + embeddings.resize;
            embeddings.time = started.elapsed().saturating_sub(frames);
        }
        Ok(embeddings)
    }

    fn encode_image(
        &self,
        pixels: &PixelValues,
        known: Known,
        cancel: &CancelToken,
    ) -> Result<Option<Found>, Error> {
        if let Some(embeddings) = known.embeddings {
            return Ok(Some(Found { embeddings, was_known: true }));
        }
        let encode = || Ok((self.engine.encode_vision(&pixels.data, pixels.grid_thw, cancel)?, true));
        match (&self.vision_cache, known.key) {
            (Some(cache), Some(key)) => cache.find_or_encode(&key, pixels.grid_thw, cancel, encode),
            _ => encode().map(|(embeddings, _)| Some(Found { embeddings, was_known: false })),
        }
    }

    /// Times and warnings go into `all`.
    fn encode_video(
        &self,
        video: &PreparedVideo,
        all: &mut Embeddings,
        cancel: &CancelToken,
    ) -> Result<Option<Found>, Error> {
        let cancelled = || cancel.is_cancelled();
        let started = Instant::now();
        let files = video.files();
        let cache = self.vision_cache.as_ref().and_then(|cache| Some((cache, video.key(cache)?)));
        all.decode += started.elapsed();
        let mut encode = || {
            let mut stream = video.stream(&cancelled)?;
            let encoded = self.engine.encode_slices(video.grid(), cancel, |out| stream.fill(out));
            let warning = stream.warning();
            // What is missing of it may be there the next time, and has to be told each time.
            let keep = warning.is_none() && video.files() == files;
            all.warnings.extend(warning);
            all.decode += stream.decode;
            all.resize += stream.resize;
            Ok((encoded?, keep))
        };
        match cache {
            Some((cache, key)) => cache.find_or_encode(&key, video.grid(), cancel, encode),
            None => encode().map(|(embeddings, _)| Some(Found { embeddings, was_known: false })),
        }
    }

    /// Answers in a session that may hold the prompt's beginning.
    pub(crate) fn answer(
        &self,
        session: &mut dyn LanguageSession,
        asked: &Asked<'_>,
        embeddings: &Embeddings,
        cancel: &CancelToken,
        mut on_delta: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Annotation, Error> {
        let Asked { options, prepared, .. } = asked;
        let package = self.processor.package();
        let past_tokens = session.past_tokens();
        let prompt = self.prompt(&prepared.encoded, past_tokens, embeddings);
        let tokenizer = self.processor.tokenizer();
        let constraint = self.constraint(options)?;
        let mut text = String::new();
        let mut stream = tokenizer.stream(options.skip_special_tokens.unwrap_or(false));
        let mut stop = StopStrings::new(options.stop_strings(package));
        let mut emit = |delta: &str| {
            text.push_str(delta);
            on_delta(delta)
        };
        let mut answers = generate_all(
            session,
            &prompt,
            &options.generation(&package.generation),
            package.model.max_position_embeddings,
            constraint.as_ref().map(|c| c as &dyn Constraint),
            cancel,
            &mut |token| match stream.push(token) {
                Some(delta) => stop.push(&delta, &mut emit),
                None => ControlFlow::Continue(()),
            },
        )?;
        // Whether the caller wants more does not matter behind the last delta.
        if let Some(delta) = stream.finish() {
            let _ = stop.push(&delta, &mut emit);
        }
        let _ = stop.finish(&mut emit);
        let found_tokens = session.found_tokens();
        let generation = answers.remove(0);
        let alternatives = answers.into_iter().map(|answer| self.alternative(options, answer)).collect();
        let finish_reason = if stop.found() { FinishReason::Stop } else { generation.finish_reason };
        let boxes = self.boxes(asked, &text, &generation.token_ids);
        Ok(Annotation {
            result: text,
            token_ids: generation.token_ids,
            boxes,
            score: generation.score,
            alternatives,
            logprobs: generation.logprobs.map(|l| logprobs::with_texts(&l, tokenizer)),
            finish_reason,
            complete: options.format.as_ref().map(|_| finish_reason == FinishReason::Stop),
            prompt_tokens: prepared.encoded.input_ids.len(),
            cached_tokens: past_tokens + found_tokens,
            cached_vision: embeddings.known,
            media: prepared.media.clone(),
            warnings: prepared.warnings.iter().chain(&embeddings.warnings).cloned().collect(),
            times: Times {
                decode: prepared.decode + embeddings.decode,
                resize: prepared.resize + embeddings.resize,
                vision: embeddings.time,
                prefill: generation.prefill,
                generate: generation.generate,
            },
            model: package.name.clone(),
        })
    }

    /// An answer that nobody saw grow.
    fn alternative(&self, options: &RequestOptions, answer: Generation) -> Alternative {
        let tokenizer = self.processor.tokenizer();
        let whole = tokenizer.detokenize(&answer.token_ids, options.skip_special_tokens.unwrap_or(false));
        let result = stop::before_stop_string(options.stop_strings(self.processor.package()), &whole);
        let is_cut = result.len() < whole.len();
        Alternative {
            result,
            token_ids: answer.token_ids,
            finish_reason: if is_cut { FinishReason::Stop } else { answer.finish_reason },
            score: answer.score,
            logprobs: answer.logprobs.map(|l| logprobs::with_texts(&l, tokenizer)),
        }
    }

    /// The prompt for a session that holds its first tokens, with the embeddings of what comes behind them.
    pub(crate) fn prompt<'a>(
        &self,
        encoded: &'a EncodedPrompt,
        past_tokens: usize,
        embeddings: &'a Embeddings,
    ) -> Prompt<'a> {
        let held = |pad: TokenId, all: &'a [VisionEmbeddings]| {
            let mut tokens = encoded.input_ids[..past_tokens].iter().filter(|id| **id == pad).count();
            let held = all.iter().take_while(|one| {
                let whole = tokens >= one.n_tokens();
                tokens = tokens.saturating_sub(one.n_tokens());
                whole
            });
            &all[held.count()..]
        };
        let vision = self.processor.tokenizer().vision_tokens();
        Prompt {
            input_ids: &encoded.input_ids,
            position_ids: &encoded.position_ids,
            rope_delta: encoded.rope_delta,
            images: held(vision.image_pad, &embeddings.images),
            videos: held(vision.video_pad, &embeddings.videos),
        }
    }

    /// The boxes of an answer. Where its text lacks special tokens, they are read from what its tokens spell.
    fn boxes(&self, asked: &Asked<'_>, text: &str, token_ids: &[TokenId]) -> Option<AnswerBoxes> {
        let Asked { request, options, prepared, picture } = asked;
        let forms = options.boxes.unwrap_or_default();
        let spelled = options.skip_special_tokens.unwrap_or(false).then(|| {
            let spelled = self.processor.tokenizer().detokenize(token_ids, false);
            stop::before_stop_string(options.stop_strings(self.processor.package()), &spelled)
        });
        let answer = spelled.as_deref().unwrap_or(text);
        let named = question_text(request).and_then(question_picture);
        let n_images = prepared.media.iter().filter(|m| !m.is_video).count();
        let picture = named.filter(|n| (1..=n_images).contains(n)).unwrap_or(*picture);
        let boxes = AnswerBoxes::read(answer, forms, &prepared.media, n_images, Some(picture));
        (forms == BoxForms::Any || boxes != AnswerBoxes::default()).then_some(boxes)
    }
}

/// What failed because it was cancelled is no error, but nothing that was found.
fn unless_cancelled(
    found: Result<Option<Found>, Error>,
    cancel: &CancelToken,
) -> Result<Option<Found>, Error> {
    match found {
        Err(_) if cancel.is_cancelled() => Ok(None),
        found => found,
    }
}

/// What is asked, without a template around it: the question, or the conversation's last text.
fn question_text(request: &Request) -> Option<&str> {
    match &request.prompt {
        PromptInput::Question(question) => Some(question),
        PromptInput::Messages(messages) => messages.iter().rev().find_map(Message::text),
        PromptInput::Raw(_) => None,
    }
}
