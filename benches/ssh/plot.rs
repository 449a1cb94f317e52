//! Bars of ratios as an SVG, for the documentation.

use std::fmt::Write as _;

const LEFT: f64 = 200.0;
const UNIT: f64 = 180.0;
const BAR: f64 = 16.0;
const COLOURS: [&str; 3] = ["#9aa5b1", "#1f6feb", "#d29922"];

/// `rows`: what was measured, and each way's ratio to the first.
pub(crate) fn svg(ways: &[&str; 3], rows: &[(&str, [f64; 3])]) -> String {
    let group = BAR * 3.0 + 18.0;
    let (width, height) = (LEFT + UNIT * 3.0, 60.0 + group * rows.len() as f64);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (index, way) in ways.iter().enumerate() {
        let x = LEFT + 150.0 * index as f64;
        let colour = COLOURS[index];
        writeln!(text, "<rect x=\"{x}\" y=\"12\" width=\"12\" height=\"12\" fill=\"{colour}\"/>").unwrap();
        writeln!(text, "<text x=\"{}\" y=\"22\">{way}</text>", x + 18.0).unwrap();
    }
    for (row, (what, ratios)) in rows.iter().enumerate() {
        let top = 44.0 + group * row as f64;
        writeln!(text, "<text x=\"8\" y=\"{}\">{what}</text>", top + BAR * 1.8).unwrap();
        for (index, ratio) in ratios.iter().enumerate() {
            let y = top + BAR * index as f64;
            let length = (ratio * UNIT).min(UNIT * 2.7);
            let colour = COLOURS[index];
            writeln!(
                text,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"{}\" fill=\"{colour}\"/>",
                BAR - 3.0
            )
            .unwrap();
            writeln!(text, "<text x=\"{:.1}\" y=\"{}\">{ratio:.2}</text>", LEFT + length + 6.0, y + 11.0)
                .unwrap();
        }
    }
    let one = LEFT + UNIT;
    writeln!(text, "<line x1=\"{one}\" y1=\"36\" x2=\"{one}\" y2=\"{height}\" stroke=\"#555\" stroke-dasharray=\"3 3\"/>\n</svg>").unwrap();
    text
}
