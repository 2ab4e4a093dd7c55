//! What a transfer costs against hosts and loss, up to ten thousand hosts, on the simulated network: the same figures on
//! every machine. `cargo bench --bench simulation [HOSTS...]`

use makuo::sim::goodput::measure;

fn main() {
    let asked: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    for hosts in [3, 10, 100, 1000, 10_000].into_iter().filter(|h| asked.is_empty() || asked.contains(h)) {
        for loss in [0.0, 0.001, 0.01, 0.05] {
            match measure(hosts, loss) {
                Some(row) => println!("{row}\n       {}", row.peaks()),
                None => println!("{hosts:>6} hosts {:>4.1} % lost: not every host is complete", loss * 100.0),
            }
        }
    }
}
