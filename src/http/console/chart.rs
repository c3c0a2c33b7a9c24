//! Draws charts as SVG, without scripts and with colours from the stylesheet. A table next to each chart has
//! the same values.

use std::fmt::Write as _;

/// Sizes in the drawing's own units. The page scales it.
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 62.0;
const BOTTOM: f64 = 24.0;
const TOP: f64 = 10.0;

/// One column of a chart: the label of its time, what the browser shows when the pointer is over it, and a value of
/// each series, from the bottom up.
pub(super) struct Column<T> {
    pub(super) label: String,
    pub(super) tooltip: String,
    pub(super) values: Vec<T>,
}

pub(super) struct Chart {
    pub(super) svg: String,
}

fn plot_height() -> f64 {
    HEIGHT - BOTTOM - TOP
}

/// A round number of at least `max`, whose half is a whole number.
fn ceiling(max: i64) -> i64 {
    let mut step = 1;
    loop {
        for factor in [2, 4, 6] {
            if step * factor >= max.max(4) {
                return step * factor;
            }
        }
        step *= 10;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a drawing is not exact to the unit")]
fn y_of(value: i64, top: i64) -> f64 {
    TOP + plot_height() * (1.0 - value as f64 / top as f64)
}

#[expect(clippy::cast_precision_loss, reason = "charts have some dozens of columns")]
fn x_of(column: usize, columns: usize) -> f64 {
    LEFT + (WIDTH - LEFT) * column as f64 / columns as f64
}

/// Stacked bars.
pub(super) fn bars(title: &str, columns: &[Column<i64>]) -> Chart {
    let top = ceiling(columns.iter().map(|column| column.values.iter().sum()).max().unwrap_or(0));
    let mut svg = open(title, top, &|value| value.to_string(), columns);
    for (at, column) in columns.iter().enumerate() {
        let (x, next) = (x_of(at, columns.len()), x_of(at + 1, columns.len()));
        let width = (next - x - 2.0).max(1.0);
        let mut below = 0;
        for (series, value) in column.values.iter().enumerate().filter(|(_, value)| **value > 0) {
            let (y, foot) = (y_of(below + value, top), y_of(below, top));
            below += value;
            add(
                &mut svg,
                &format!(
                    "<rect class=\"s{}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"1.5\"/>",
                    series + 1,
                    x + 1.0,
                    foot - y
                ),
            );
        }
    }
    close(svg, columns)
}

/// A line for each series. A column without a value interrupts the line.
pub(super) fn lines(title: &str, columns: &[Column<Option<i64>>], unit: &dyn Fn(i64) -> String) -> Chart {
    let values = columns.iter().flat_map(|column| column.values.iter().flatten());
    let top = ceiling(values.copied().max().unwrap_or(0));
    let mut svg = open(title, top, unit, columns);
    let count = columns.first().map_or(0, |column| column.values.len());
    for series in 0..count {
        let mut path = String::new();
        let mut is_drawing = false;
        for (at, column) in columns.iter().enumerate() {
            let Some(value) = column.values[series] else {
                is_drawing = false;
                continue;
            };
            let x = f64::midpoint(x_of(at, columns.len()), x_of(at + 1, columns.len()));
            let y = y_of(value, top);
            let step = if is_drawing { "L" } else { "M" };
            add(&mut path, &format!("{step}{x:.1} {y:.1}"));
            is_drawing = true;
            // A single value needs a dot, because a line would have no length.
            add(
                &mut svg,
                &format!("<circle class=\"p{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>", series + 1),
            );
        }
        add(
            &mut svg,
            &format!(
                "<path class=\"l{}\" d=\"{path}\" stroke-linecap=\"round\" stroke-linejoin=\"round\"/>",
                series + 1
            ),
        );
    }
    close(svg, columns)
}

fn open<T>(title: &str, top: i64, unit: &dyn Fn(i64) -> String, columns: &[Column<T>]) -> String {
    let mut svg =
        format!("<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
    for part in [0, 1, 2] {
        let value = top * part / 2;
        let y = y_of(value, top);
        add(
            &mut svg,
            &format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                unit(value)
            ),
        );
    }
    let foot = HEIGHT - 4.0;
    if let (Some(first), Some(last)) = (columns.first(), columns.last()) {
        let middle = &columns[columns.len() / 2];
        let centre = x_of(columns.len() / 2, columns.len());
        add(
            &mut svg,
            &format!(
                "<text x=\"{LEFT}\" y=\"{foot}\">{}</text>\
                 <text x=\"{centre:.1}\" y=\"{foot}\" text-anchor=\"middle\">{}</text>\
                 <text x=\"{WIDTH}\" y=\"{foot}\" text-anchor=\"end\">{}</text>",
                first.label, middle.label, last.label
            ),
        );
    }
    svg
}

/// Lays a rectangle without colour over each column, with its tooltip.
fn close<T>(mut svg: String, columns: &[Column<T>]) -> Chart {
    for (at, column) in columns.iter().enumerate() {
        let (x, next) = (x_of(at, columns.len()), x_of(at + 1, columns.len()));
        add(
            &mut svg,
            &format!(
                "<rect class=\"tip\" x=\"{x:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
                next - x,
                plot_height(),
                column.tooltip
            ),
        );
    }
    svg.push_str("</svg>");
    Chart { svg }
}

fn add(text: &mut String, words: &str) {
    write!(text, "{words}").expect("a String takes any text");
}
