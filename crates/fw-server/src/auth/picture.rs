//! A text as a picture that the camera of a phone reads (QR, ISO/IEC 18004).

use std::fmt::Write as _;

use qrcode::{Color, QrCode};

/// So many light modules are around it: scanners need them (ISO/IEC 18004, 7.3.8).
const QUIET: usize = 4;

/// The picture as SVG: dark on light in either theme, since many scanners read nothing else. It has no style in it, which
/// the policy of pages would refuse. `None` when the text is too long.
pub(super) fn svg(text: &str) -> Option<String> {
    let code = QrCode::new(text).ok()?;
    let (width, side) = (code.width(), code.width() + 2 * QUIET);
    let colors = code.to_colors();
    let mut dark = String::new();
    for (y, row) in colors.chunks(width).enumerate() {
        for (x, length) in runs(row) {
            let (x, y) = (x + QUIET, y + QUIET);
            write!(dark, "M{x} {y}h{length}v1h-{length}z").expect("writing to memory");
        }
    }
    Some(format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}" role="img" aria-label="QR code to scan with an authenticator app" shape-rendering="crispEdges"><rect width="{side}" height="{side}" fill="#fff"/><path d="{dark}" fill="#000"/></svg>"##
    ))
}

/// Where dark modules of a row begin, and how many they are.
fn runs(row: &[Color]) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    let pieces = row.chunk_by(|one, next| one == next).map(move |piece| {
        let begin = at;
        at += piece.len();
        (begin, piece)
    });
    let dark = pieces.filter(|(_, piece)| piece.first() == Some(&Color::Dark));
    dark.map(|(begin, piece)| (begin, piece.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pixels for each module.
    const SCALE: usize = 4;

    /// Draws what the picture says, pixel by pixel; a number is how bright one is.
    fn drawn(svg: &str) -> (usize, Vec<u8>) {
        let between = |begin: &str, end: &str| {
            let (_, rest) = svg.split_once(begin).unwrap();
            rest.split_once(end).unwrap().0
        };
        let side: usize = between(r#"<rect width=""#, "\"").parse().unwrap();
        let mut pixels = vec![255; (side * SCALE).pow(2)];
        for run in between(r#"<path d=""#, "\"").split_terminator('z') {
            let numbers: Vec<usize> = run
                .split(['M', ' ', 'h', 'v', '-'])
                .filter_map(|number| number.parse().ok())
                .collect();
            let [x, y, length, 1, _] = numbers[..] else { panic!("{run}") };
            for line in y * SCALE..(y + 1) * SCALE {
                let begin = line * side * SCALE + x * SCALE;
                pixels[begin..begin + length * SCALE].fill(0);
            }
        }
        (side * SCALE, pixels)
    }

    #[test]
    fn a_scanner_reads_what_was_written() {
        for name in ["ada", "a-name.that-is@as-long-as.names-may-be_0123456789-0123456789-01"] {
            let (_, address, picture) = crate::auth::new_totp(name);
            let (side, pixels) = drawn(&picture);
            let quiet = QUIET * SCALE;
            let outside = |at: &usize| {
                let (x, y) = (at % side, at / side);
                x.min(y) < quiet || x.max(y) >= side - quiet
            };
            assert!((0..pixels.len()).filter(outside).all(|at| pixels[at] == 255));
            let image = |x, y| pixels[y * side + x];
            let mut image = rqrr::PreparedImage::prepare_from_greyscale(side, side, image);
            let found = image.detect_grids();
            let [only] = &found[..] else { panic!("{} pictures", found.len()) };
            assert_eq!(only.decode().unwrap().1, address);
        }
    }

    #[test]
    fn it_has_nothing_that_the_policy_of_pages_refuses() {
        let picture = svg("x").unwrap();
        assert!(!picture.contains("style") && !picture.contains("<script"), "{picture}");
        assert_eq!(svg(&"x".repeat(4000)), None);
    }
}
