// Repeats server/routing/reference_vectors.json from standard input and prints the cases that come out otherwise.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

const vectors = JSON.parse(readFileSync(0, "utf8"));
const wrong = [];
const check = (name, expected, actual) => expected === actual || wrong.push({ name, expected, actual });

const first8Bytes = (salt, unit) => createHash("sha256").update(`${salt}:${unit}`, "utf8").digest("hex").slice(0, 16);
const bucketOf = (salt, unit) => Number(BigInt(`0x${first8Bytes(salt, unit)}`) >> 11n) / 2 ** 53;

for (const { salt, unit, first_8_bytes, bucket } of vectors.buckets) {
  check("first_8_bytes", first_8_bytes, first8Bytes(salt, unit));
  check("bucket", bucket, bucketOf(salt, unit));
}
for (const { route, model, answers } of vectors.assignments) {
  const splits = route.challengers.filter((each) => each.mode === "split");
  const rest = 1e9 - splits.reduce((sum, each) => sum + Math.round(each.share * 1e9), 0);
  for (const { unit, version, rule, propensity } of answers) {
    const bucket = bucketOf(route.salt || model, unit);
    const split = splits.find((each) => each.ranges.some(([start, end]) => start <= bucket && bucket < end));
    check("version", version, split ? split.version : route.champion);
    check("rule", rule, split ? "split" : "champion");
    check("propensity", propensity, split ? split.share : rest / 1e9);
  }
}
for (const { salt, version, share, unit, bucket, scored } of vectors.shadows) {
  check("shadow bucket", bucket, bucketOf(`${salt}:shadow:${version}`, unit));
  check("scored", scored, bucketOf(`${salt}:shadow:${version}`, unit) < share);
}
console.log(JSON.stringify(wrong));
