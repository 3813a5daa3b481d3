//! How much a page draws, found before it is drawn: forms, patterns, masks and glyphs that draw each other can multiply a few
//! lines into years of work, which the interpreter bounds only in depth.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use hayro::hayro_interpret::font::{Glyph, GlyphRun};
use hayro::hayro_interpret::hayro_syntax::page::Page;
use hayro::hayro_interpret::pattern::Pattern;
use hayro::hayro_interpret::util::TransformExt;
use hayro::hayro_interpret::{
    BlendMode, ClipPath, Context, Device, DrawMode, DrawProps, Image, ImageDrawProps, InterpreterCache,
    InterpreterSettings, Paint, SoftMask, interpret_page,
};
use hayro::kurbo::{Affine, BezPath, Rect};

use crate::Error;

/// Most steps of a page: paths, glyphs, images, clips. Dense maps have a few hundred thousand.
const MAX_STEPS: u32 = 2_000_000;

/// Longest time for going through a page, where its steps are costly ones. Ordinary pages take milliseconds.
const MAX_TIME: Duration = Duration::from_secs(10);

/// Goes through a page without drawing it.
pub(super) fn check(page: &Page<'_>) -> Result<(), Error> {
    let (width, height) = page.render_dimensions();
    let bbox = Rect::new(0.0, 0.0, f64::from(width), f64::from(height));
    let cache = InterpreterCache::new();
    let transform = page.initial_transform(true).to_kurbo();
    let mut context = Context::new(transform, bbox, &cache, page.xref(), InterpreterSettings::default());
    let mut meter = Meter { left: MAX_STEPS, until: Instant::now() + MAX_TIME };
    let measured = catch_unwind(AssertUnwindSafe(|| interpret_page(page, &mut context, &mut meter)));
    match measured {
        Err(payload) if payload.is::<TooMuch>() => {
            Err(Error::PdfTooComplex { limit: MAX_STEPS, limit_s: MAX_TIME.as_secs() })
        }
        Err(payload) => resume_unwind(payload),
        Ok(()) => Ok(()),
    }
}

/// Ends the interpreter, which has no other way out.
struct TooMuch;

struct Meter {
    left: u32,
    until: Instant,
}

impl Meter {
    fn step(&mut self) {
        let is_late = self.left.is_multiple_of(256) && Instant::now() > self.until;
        match self.left.checked_sub(1).filter(|_| !is_late) {
            Some(left) => self.left = left,
            None => resume_unwind(Box::new(TooMuch)),
        }
    }

    /// What is drawn in drawing with this paint through this mask.
    fn within<'a>(
        &mut self,
        paint: Option<&Paint<'a>>,
        mask: Option<&SoftMask<'a>>,
        mode: Option<&DrawMode>,
    ) {
        self.step();
        if let Some(Paint::Pattern(pattern)) = paint
            && let Pattern::Tiling(tile) = &**pattern
        {
            tile.interpret(self, Affine::IDENTITY, matches!(mode, Some(DrawMode::Stroke(_))));
        }
        if let Some(mask) = mask {
            mask.interpret(self);
        }
    }
}

impl<'a> Device<'a> for Meter {
    fn draw_path(&mut self, _: &BezPath, props: DrawProps<'a>, mode: &DrawMode) {
        self.within(Some(&props.paint), props.soft_mask.as_ref(), Some(mode));
    }

    fn push_clip_path(&mut self, _: &ClipPath) {
        self.step();
    }

    fn push_transparency_group(&mut self, _: f32, mask: Option<SoftMask<'a>>, _: BlendMode) {
        self.within(None, mask.as_ref(), None);
    }

    fn draw_glyph_run(&mut self, run: &GlyphRun<'_, 'a>, props: DrawProps<'a>, mode: &DrawMode) {
        self.within(Some(&props.paint), props.soft_mask.as_ref(), Some(mode));
        for glyph in run.glyphs() {
            self.step();
            if let Glyph::Type3(drawn) = &**glyph {
                drawn.interpret(self, props.transform, Affine::IDENTITY, &props.paint);
            }
        }
    }

    fn draw_image(&mut self, _: Image<'a, '_>, props: ImageDrawProps<'a>) {
        self.within(None, props.soft_mask.as_ref(), None);
    }

    fn pop_clip(&mut self) {}

    fn pop_transparency_group(&mut self) {}
}
