/* All tests of the page, in order; the plan comes last. SANITIZE: only those that the program takes part in. */
import {launch, plan} from './harness.mjs';
import {chatTests} from './chat_test.mjs';
import {dialTests} from './dial_test.mjs';
import {liveTests} from './live_test.mjs';
import {lookTests} from './look_test.mjs';
import {troubleTests} from './trouble_test.mjs';
import {unitTests} from './unit_test.mjs';

const mocked = [unitTests, chatTests, dialTests, troubleTests, lookTests];

const browser = await launch();
for (const tests of [...(process.env.SANITIZE ? [] : mocked), liveTests]) await tests(browser);
await browser.close();
plan();
