//! A picture of the ratios: how many times better than its peer, on a logarithmic axis, and where the goal is.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::report::{Better, Row};
use super::table::number;

const WIDTH: i32 = 1100;
const ROW_HEIGHT: i32 = 24;
/// Above the bars: title and axis.
const TOP: i32 = 70;
/// Left of the axis: names.
const LEFT: i32 = 540;
/// Right of it: numbers.
const RIGHT: i32 = 70;
/// Ends of the axis.
const TIMES: (f64, f64) = (0.25, 16.0);
const BETTER: RGBColor = RGBColor(44, 123, 182);
const WORSE: RGBColor = RGBColor(215, 109, 40);

/// Only SVG is drawn.
///
/// # Errors
///
/// If the file has another ending.
pub fn check_name(path: &Path) -> Result<()> {
    match path.extension() {
        Some(ending) if ending == "svg" => Ok(()),
        _ => bail!("{}: plots are written as SVG; name a file that ends in .svg", path.display()),
    }
}

/// Draws the rows.
///
/// # Errors
///
/// What the drawing library reports.
pub fn svg(rows: &[Row]) -> Result<String> {
    let mut text = String::new();
    let height = TOP + ROW_HEIGHT * rows.len() as i32 + 16;
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH as u32, height as u32)).into_drawing_area();
        draw(&area, rows, height).map_err(|error| anyhow!("cannot draw the plot: {error}"))?;
        area.present().map_err(|error| anyhow!("cannot draw the plot: {error}"))?;
    }
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>>;

fn draw(area: &Area<'_>, rows: &[Row], height: i32) -> Drawn {
    area.fill(&WHITE)?;
    let text = |size: f64, color: &RGBColor, at: HPos| {
        ("sans-serif", size).into_font().color(color).pos(Pos::new(at, VPos::Center))
    };
    let title = "times better than the peer: lower times and memory, higher speeds; the mark is the goal";
    area.draw(&Text::new(title, (16, 18), text(15.0, &BLACK, HPos::Left)))?;
    let mut times = TIMES.0;
    while times <= TIMES.1 {
        let at = x(times);
        let color = if times == 1.0 { BLACK } else { RGBColor(220, 220, 220) };
        area.draw(&PathElement::new(vec![(at, TOP - 6), (at, height - 12)], color))?;
        area.draw(&Text::new(format!("{times}x"), (at, TOP - 18), text(12.0, &BLACK, HPos::Center)))?;
        times *= 2.0;
    }
    for (index, row) in rows.iter().enumerate() {
        let middle = TOP + ROW_HEIGHT * index as i32 + ROW_HEIGHT / 2;
        let name = format!("{}: {} beside {}", row.scenario, row.metric, row.peer_name);
        area.draw(&Text::new(name, (LEFT - 10, middle), text(12.0, &BLACK, HPos::Right)))?;
        let better = times_better(row, row.ratio);
        let (from, to) = (x(better.min(1.0)), x(better.max(1.0)));
        let color = if better >= 1.0 { BETTER } else { WORSE };
        area.draw(&Rectangle::new([(from, middle - 7), (to, middle + 7)], color.filled()))?;
        let label = format!("{}x", number(better));
        area.draw(&Text::new(label, (x(TIMES.1) + 8, middle), text(12.0, &BLACK, HPos::Left)))?;
        if let Some(goal) = row.goal {
            let at = x(times_better(row, goal));
            area.draw(&PathElement::new(vec![(at, middle - 10), (at, middle + 10)], BLACK.stroke_width(3)))?;
        }
    }
    Ok(())
}

/// A ratio as a factor that is above 1 where ours is better.
fn times_better(row: &Row, ratio: f64) -> f64 {
    if row.better == Better::Higher { ratio } else { 1.0 / ratio }
}

/// Where a factor lies on the axis, within its ends.
fn x(times: f64) -> i32 {
    let share = (times.clamp(TIMES.0, TIMES.1) / TIMES.0).log2() / (TIMES.1 / TIMES.0).log2();
    LEFT + (f64::from(WIDTH - RIGHT - LEFT) * share).round() as i32
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::row;
    use super::*;

    #[test]
    fn each_row_has_a_bar_its_name_and_its_goal() {
        let rows = [
            row("time", Better::Lower, 10.0, 20.0, Some(0.9)),
            row("speed", Better::Higher, 10.0, 20.0, None),
        ];
        let svg = svg(&rows).unwrap();
        for part in ["<svg", "s: time beside peer", "2.00x", "0.500x", "</svg>"] {
            assert!(svg.contains(part), "{part}\n{svg}");
        }
        let colored = |color: &RGBColor| {
            svg.matches(&format!("#{:02X}{:02X}{:02X}", color.0, color.1, color.2)).count()
        };
        assert_eq!((colored(&BETTER), colored(&WORSE)), (1, 1), "{svg}");
        assert!(x(1.0) > x(0.5) && x(0.0) == x(TIMES.0) && x(1e9) == WIDTH - RIGHT);
        assert!(check_name(Path::new("a.svg")).is_ok() && check_name(Path::new("a.png")).is_err());
    }
}
