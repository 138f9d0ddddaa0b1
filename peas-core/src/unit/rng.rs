//! Chance that can be repeated.

/// A seeded source of random choices. The same seed gives the same choices for ever (golden test below), because recorded runs
/// are replayed by it. Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// A source that repeats for this seed.
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number in `0..bound`; zero when `bound` is zero.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.0.usize(..bound) }
    }

    /// Any 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.0.f64() < probability
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        self.0.f64()
    }

    /// The numbers below `count`, each once, from a random start in random equal steps: a way through many without writing an order down.
    pub fn walk(&mut self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let start = self.below(count);
        let step = loop {
            let step = 1 + self.below(count);
            if count == 0 || gcd(step, count) == 1 {
                break step;
            }
        };
        (0..count).map(move |turn| (start + turn * step) % count)
    }

    /// Brings the items into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_passes_each_number_once() {
        let mut rng = Rng::new(1);
        for count in 0..200 {
            let mut seen: Vec<usize> = rng.walk(count).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_sequence_of_a_seed_never_changes() {
        let mut rng = Rng::new(7);
        let seen: Vec<u64> = (0..4).map(|_| rng.next_u64() >> 48).collect();
        let mut again = Rng::new(7);
        assert_eq!(seen, (0..4).map(|_| again.next_u64() >> 48).collect::<Vec<_>>());
        assert_eq!(seen, [50684, 14580, 47073, 31531], "recorded runs would no longer replay");
    }
}
