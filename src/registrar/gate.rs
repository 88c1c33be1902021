//! Whether an instance may take traffic, from how its own probes went. No clock, no socket.

/// Closed at first. The first good probe opens it; `fall` bad ones in a row close it; then `rise` good ones in a row open it again.
#[derive(Debug)]
pub struct Gate {
    open: bool,
    opened_before: bool,
    /// Probes in a row that spoke for the other state.
    contrary: u32,
    rise: u32,
    fall: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Opened,
    Closed,
}

impl Gate {
    pub fn new(rise: u32, fall: u32) -> Self {
        Self { open: false, opened_before: false, contrary: 0, rise, fall }
    }

    /// `Some` when this probe turned it.
    pub fn observe(&mut self, good: bool) -> Option<Turn> {
        if good == self.open {
            self.contrary = 0;
            return None;
        }
        self.contrary += 1;
        let needed = match (self.open, self.opened_before) {
            (true, _) => self.fall,
            (false, true) => self.rise,
            (false, false) => 1,
        };
        if self.contrary < needed {
            return None;
        }
        self.open = !self.open;
        self.opened_before = true;
        self.contrary = 0;
        Some(if self.open { Turn::Opened } else { Turn::Closed })
    }

    /// Nothing is pending: the next probe cannot turn it, or need not come soon.
    pub fn is_settled(&self) -> bool {
        self.open && self.contrary == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+` a good probe, `-` a bad one; `O` it opened, `C` it closed, `.` neither.
    fn check(rise: u32, fall: u32, probes: &str, expected: &str) {
        let mut gate = Gate::new(rise, fall);
        let turns: String = probes
            .chars()
            .map(|probe| match gate.observe(probe == '+') {
                Some(Turn::Opened) => 'O',
                Some(Turn::Closed) => 'C',
                None => '.',
            })
            .collect();
        assert_eq!(turns, expected, "{probes}");
    }

    #[test]
    fn the_first_good_probe_opens() {
        check(2, 3, "--+", "..O");
    }

    #[test]
    fn it_closes_after_fall_and_comes_back_after_rise() {
        check(2, 3, "+---++", "O..C.O");
        check(2, 3, "+--+--+---", "O........C");
        check(2, 1, "+-+-+++", "OC...O.");
        check(1, 1, "+-+-", "OCOC");
    }

    #[test]
    fn it_is_settled_only_when_open_and_undisputed() {
        let mut gate = Gate::new(2, 2);
        assert!(!gate.is_settled());
        gate.observe(true);
        assert!(gate.is_settled());
        gate.observe(false);
        assert!(!gate.is_settled());
    }
}
