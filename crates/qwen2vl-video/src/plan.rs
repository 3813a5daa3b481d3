//! In how many pieces a video is decoded: from its beginning on, or from the last key frames before the wanted ones.
//!
//! Going on decoding is cheaper than starting ffmpeg again while fewer frames lie between than it decodes in the time of
//! a start. The numbers are measured, see the README.

use crate::packets::Packets;

/// Time in which ffmpeg starts, finds the streams and seeks.
const START_S: f64 = 0.13;

/// Pixels that ffmpeg decodes in a second, on two cores.
const PIXELS_PER_S: f64 = 500e6;

/// Most frames that are picked out by an expression of ffmpeg's, which grows with them.
const MAX_PICKED: usize = 2000;

/// How frames are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Decoding {
    /// Whatever is faster.
    #[default]
    Auto,
    /// All frames up to the last wanted one are decoded.
    Sequential,
    /// From the last key frame before each wanted one, wherever that skips a frame.
    Seek,
}

/// Frames that one run of ffmpeg gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// Whether to begin at the key frame before the first of them rather than at the beginning.
    pub seek: bool,
    /// Which frames, ascending.
    pub wanted: Vec<usize>,
}

/// Divides ascending, distinct frames among runs.
pub(crate) fn plan(packets: &Packets, wanted: Vec<usize>, pixels: u64, decoding: Decoding) -> Vec<Run> {
    let may_seek = packets.timed && decoding != Decoding::Sequential;
    let worth = match decoding {
        Decoding::Auto => (START_S * PIXELS_PER_S / pixels.max(1) as f64).ceil() as usize,
        _ => 0,
    };
    let mut runs: Vec<Run> = Vec::new();
    let mut decoded = 0;
    for index in wanted {
        // The first start is paid in any case.
        let gap = if runs.is_empty() { 0 } else { worth };
        let far = may_seek && packets.key_before(index).saturating_sub(decoded) > gap;
        match runs.last_mut() {
            Some(run) if !far => run.wanted.push(index),
            _ => runs.push(Run { seek: far, wanted: vec![index] }),
        }
        decoded = index;
    }
    runs
}

/// What one run lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Picked {
    /// Exactly these: time stamps, or numbers where frames have none.
    Each(Vec<i64>),
    /// Everything from the first to the last of too many to name.
    Between(i64, i64),
}

impl Picked {
    /// From ascending time stamps or numbers.
    pub fn new(values: Vec<i64>) -> Self {
        match (values.first(), values.last()) {
            (Some(&first), Some(&last)) if values.len() > MAX_PICKED => Self::Between(first, last),
            _ => Self::Each(values),
        }
    }

    /// Whether ffmpeg lets it through, as it evaluates [`Picked::expression`].
    pub fn contains(&self, value: i64) -> bool {
        match self {
            Self::Each(values) => values.binary_search(&value).is_ok(),
            Self::Between(first, last) => (*first..=*last).contains(&value),
        }
    }

    /// An expression for ffmpeg's `select` over its variable `pts` or `n`: a search tree, so that a frame costs the
    /// logarithm of the number of values.
    pub fn expression(&self, variable: &str) -> String {
        let mut text = String::new();
        match self {
            Self::Each(values) => tree(values, variable, &mut text),
            Self::Between(first, last) => text = format!("between({variable},{first},{last})"),
        }
        text
    }
}

fn tree(values: &[i64], variable: &str, text: &mut String) {
    match values {
        [] => text.push('0'),
        [value] => text.push_str(&format!("eq({variable},{value})")),
        _ => {
            let (low, high) = values.split_at(values.len() / 2);
            text.push_str(&format!("if(lt({variable},{}),", high[0]));
            tree(low, variable, text);
            text.push(',');
            tree(high, variable, text);
            text.push(')');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HD: u64 = 1920 * 1080;

    /// One key frame in 250.
    fn packets(n: usize, timed: bool) -> Packets {
        Packets {
            stamps: (0..n as i64).collect(),
            keys: (0..n).step_by(250).collect(),
            timed,
            ..Packets::default()
        }
    }

    fn runs(wanted: &[usize], pixels: u64, decoding: Decoding, timed: bool) -> Vec<(bool, usize)> {
        let planned = plan(&packets(100_000, timed), wanted.to_vec(), pixels, decoding);
        assert_eq!(planned.iter().flat_map(|r| r.wanted.clone()).collect::<Vec<_>>(), wanted);
        planned.iter().map(|r| (r.seek, r.wanted.len())).collect()
    }

    #[test]
    fn seeks_where_it_skips_enough() {
        let sparse = [0, 10_000, 10_010, 90_000];
        assert_eq!(runs(&sparse, HD, Decoding::Auto, true), [(false, 1), (true, 2), (true, 1)]);
        assert_eq!(runs(&sparse, HD, Decoding::Sequential, true), [(false, 4)]);
        assert_eq!(runs(&sparse, HD, Decoding::Auto, false), [(false, 4)]);
        // Nearly all of each group is needed anyway.
        let dense: Vec<usize> = (0..2000).step_by(10).collect();
        assert_eq!(runs(&dense, HD, Decoding::Auto, true), [(false, 200)]);
        assert_eq!(runs(&[5000, 5001], HD, Decoding::Auto, true), [(true, 2)]);
        assert_eq!(runs(&[255, 505], HD, Decoding::Seek, true), [(true, 1), (true, 1)]);
        // Small frames decode so fast that a start costs thousands of them.
        assert_eq!(runs(&[0, 700], 160 * 120, Decoding::Auto, true), [(false, 2)]);
    }

    #[test]
    fn expressions() {
        assert_eq!(Picked::new(vec![-5, 7]).expression("pts"), "if(lt(pts,7),eq(pts,-5),eq(pts,7))");
        assert_eq!(Picked::new(Vec::new()).expression("n"), "0");
        let many = Picked::new((0..5000).map(|i| i * 3).collect());
        assert_eq!(many.expression("n"), "between(n,0,14997)");
        assert!(many.contains(1) && !many.contains(14_998));
        let few = Picked::new((0..2000).map(|i| i * 1_000_000).collect());
        assert!(few.expression("pts").len() < 100_000, "arguments end at 128 KiB");
        assert!(few.contains(3_000_000) && !few.contains(1));
    }
}
