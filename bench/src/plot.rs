//! Figures as pictures (SVG).

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::Spread;

/// What each side is drawn in.
const COLORS: [RGBColor; 2] = [RGBColor(31, 119, 180), RGBColor(170, 170, 170)];

/// Groups of two bars, ours and the limit's, with lines from the least to the most.
pub fn bars(path: &Path, title: &str, groups: &[(String, [Spread; 2])]) -> Result<()> {
    draw(path, title, groups).map_err(|error| anyhow!("{} cannot be drawn: {error}", path.display()))
}

fn draw(path: &Path, title: &str, groups: &[(String, [Spread; 2])]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (860, 380)).into_drawing_area();
    root.fill(&WHITE)?;
    let most = groups
        .iter()
        .flat_map(|(_, sides)| sides.iter().map(|s| s.max))
        .fold(0.0, f64::max);
    let top = if most > 0.0 { most * 1.1 } else { 1.0 };
    // Below zero there is room for the groups' names.
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..groups.len() as f64, -top * 0.12..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_label_formatter(&|y| if *y < 0.0 { String::new() } else { format!("{y}") })
        .draw()?;
    for (side, name) in ["ours", "bare limit"].into_iter().enumerate() {
        let color = COLORS[side];
        let bars = groups.iter().enumerate().map(|(group, (_, sides))| {
            let left = group as f64 + 0.15 + 0.35 * side as f64;
            Rectangle::new([(left, 0.0), (left + 0.33, sides[side].median)], color.filled())
        });
        chart
            .draw_series(bars)?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled()));
        chart.draw_series(groups.iter().enumerate().map(|(group, (_, sides))| {
            let middle = group as f64 + 0.315 + 0.35 * side as f64;
            PathElement::new([(middle, sides[side].min), (middle, sides[side].max)].to_vec(), BLACK)
        }))?;
    }
    let style = ("sans-serif", 13)
        .into_font()
        .color(&BLACK)
        .pos(Pos::new(HPos::Center, VPos::Top));
    chart.draw_series(
        groups
            .iter()
            .enumerate()
            .map(|(group, (name, _))| Text::new(name.clone(), (group as f64 + 0.5, -top * 0.03), style.clone())),
    )?;
    chart
        .configure_series_labels()
        .background_style(WHITE)
        .border_style(RGBColor(200, 200, 200))
        .draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_names_its_groups() {
        let path = std::env::temp_dir().join(format!("hookmill-plot-{}.svg", std::process::id()));
        let spread = Spread::of([1.0, 2.0, 3.0]);
        bars(&path, "what", &[("one group".to_owned(), [spread, spread])]).expect("drawn");
        let svg = std::fs::read_to_string(&path).expect("written");
        std::fs::remove_file(&path).expect("there");
        for text in ["what", "one group", "bare limit"] {
            assert!(svg.contains(text), "{text} is not in it");
        }
    }
}
