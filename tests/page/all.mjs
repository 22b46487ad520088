/* All tests of the page, in order; the plan comes last. */
import {launch, plan} from './harness.mjs';
import {chatTests} from './chat_test.mjs';
import {dialTests} from './dial_test.mjs';
import {lookTests} from './look_test.mjs';
import {troubleTests} from './trouble_test.mjs';
import {unitTests} from './unit_test.mjs';

const groups = [unitTests, chatTests, dialTests, troubleTests, lookTests];

const browser = await launch();
for (const tests of groups) await tests(browser);
await browser.close();
plan();
