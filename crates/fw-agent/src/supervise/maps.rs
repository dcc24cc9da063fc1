//! What is mapped into this process, as the kernel lists it (`proc_pid_maps(5)`).

use std::ops::Range;

/// Where a file is mapped that nobody has written to: its code, and the constants at its begin. What the loader has
/// put right is from further on in the file (`proc_pid_maps(5)`).
pub(super) fn unwritten(maps: &str, file: &str) -> impl Iterator<Item = Range<usize>> {
    maps.lines().filter_map(move |line| {
        let mut fields = line.strip_suffix(file)?.split_ascii_whitespace();
        let (range, may, offset) = (fields.next()?, fields.next()?, fields.next()?);
        let at_begin = usize::from_str_radix(offset, 16).ok()? == 0;
        if may != "r-xp" && !(may == "r--p" && at_begin) {
            return None;
        }
        let (start, end) = range.split_once('-')?;
        Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_written_is_given_back() {
        let maps = "\
            55d0a0000000-55d0a0ae8000 r--p 00000000 fe:00 1234   /opt/a b/fleetwright\n\
            55d0a0ae8000-55d0a2d88000 r-xp 00ae8000 fe:00 1234   /opt/a b/fleetwright\n\
            55d0a2d88000-55d0a2e8e000 r--p 02d88000 fe:00 1234   /opt/a b/fleetwright\n\
            55d0a2e8e000-55d0a2e96000 rw-p 02e8d000 fe:00 1234   /opt/a b/fleetwright\n\
            7f0000000000-7f0000200000 r-xp 00026000 fe:00 99     /usr/lib/libc.so.6\n\
            7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0      [stack]\n";
        let found: Vec<_> = unwritten(maps, "/opt/a b/fleetwright").collect();
        assert_eq!(found, [0x55d0_a000_0000..0x55d0_a0ae_8000, 0x55d0_a0ae_8000..0x55d0_a2d8_8000]);
    }
}
