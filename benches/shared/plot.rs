//! Bars of ratios as an SVG, for the documentation.

use std::fmt::Write as _;

const LEFT: f64 = 190.0;
const UNIT: f64 = 420.0;
const BAR: f64 = 13.0;
const COLOURS: [&str; 5] = ["#9aa5b1", "#d29922", "#8250df", "#1f6feb", "#54aeff"];

/// `rows`: what was measured, and each way's ratio to the first. At most as many ways as there are [`COLOURS`].
pub(crate) fn svg<const WAYS: usize>(ways: &[&str; WAYS], rows: &[(&str, [f64; WAYS])]) -> String {
    let group = BAR * WAYS as f64 + 16.0;
    let (width, height) = (LEFT + UNIT * 1.3, 60.0 + group * rows.len() as f64);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (index, way) in ways.iter().enumerate() {
        let x = 8.0 + 140.0 * index as f64;
        let colour = COLOURS[index];
        writeln!(text, "<rect x=\"{x}\" y=\"12\" width=\"12\" height=\"12\" fill=\"{colour}\"/>").unwrap();
        writeln!(text, "<text x=\"{}\" y=\"22\">{way}</text>", x + 18.0).unwrap();
    }
    for (row, (what, ratios)) in rows.iter().enumerate() {
        let top = 44.0 + group * row as f64;
        writeln!(text, "<text x=\"8\" y=\"{}\">{what}</text>", top + BAR * 2.8).unwrap();
        for (index, ratio) in ratios.iter().enumerate() {
            let y = top + BAR * index as f64;
            let length = (ratio * UNIT).min(UNIT * 1.2);
            let (colour, thick) = (COLOURS[index], BAR - 2.0);
            writeln!(
                text,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"{thick}\" fill=\"{colour}\"/>"
            )
            .unwrap();
            writeln!(text, "<text x=\"{:.1}\" y=\"{}\">{ratio:.2}</text>", LEFT + length + 6.0, y + 10.0)
                .unwrap();
        }
    }
    let one = LEFT + UNIT;
    writeln!(text, "<line x1=\"{one}\" y1=\"36\" x2=\"{one}\" y2=\"{height}\" stroke=\"#555\" stroke-dasharray=\"3 3\"/>\n</svg>").unwrap();
    text
}
