// Chooses the build of the runtime for this browser: the one for relaxed SIMD, or a slower one for all other browsers.
// Both the worker, which loads the build, and the service worker, which stores only that build, import this file; so it
// is a script, not a module.

// A WebAssembly module with one function that uses an instruction of relaxed SIMD; LiteRT.js tests with the same one.
const RELAXED_SIMD = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253,
  128, 2, 11,
];

self.runtimeName = () =>
  WebAssembly.validate(new Uint8Array(RELAXED_SIMD)) ? "litert_wasm_internal" : "litert_wasm_compat_internal";
