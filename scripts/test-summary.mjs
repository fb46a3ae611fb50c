/**
 * Prints `N passed, N failed` for the reports of vitest's JSON reporter that are named as arguments. Fails when a test
 * failed, when a file could not be run, and when there was no test at all.
 */
import { existsSync } from "node:fs"
import { readJson } from "./lib/workspace.mjs"

let passed = 0
let failed = 0
for (const file of process.argv.slice(2)) {
  if (!existsSync(file)) {
    console.error(`no report ${file}: the tests did not run`)
    process.exitCode = 1
    continue
  }
  const { numPassedTests, numFailedTests, numPendingTests, numTodoTests, testResults } = readJson(file)
  // A file that breaks before its first test has failed, though no test of it has.
  const broken = testResults.filter(
    ({ status, assertionResults }) => status === "failed" && assertionResults.length === 0
  )
  passed += numPassedTests
  failed += numFailedTests + broken.length
  const left = numPendingTests + numTodoTests
  if (left > 0) console.error(`${left} tests did not run`)
}
if (passed === 0 || failed > 0) process.exitCode = 1
console.log(`${passed} passed, ${failed} failed`)
