// Answers the grader's cases, one per line of CASES: two texts.

use longest::longest;

fn main() {
    for case in std::env::var("CASES").unwrap().lines() {
        let (left, right) = case.split_once(' ').unwrap();
        let longer = longest(left, right);
        let side = if longer.as_ptr() == left.as_ptr() { "left" } else { "right" };
        println!("\nanswer: {side} {longer}");
    }
}
