// How the console is built: one page, hashed assets, nothing inlined (the server's content-security policy allows
// scripts, images and fonts from its own origin only). `npm run dev` sends API calls to SEAWORTHY_URL.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

export default defineConfig({
  base: './',
  plugins: [svelte({ configFile: false })],
  build: {
    outDir: 'dist',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: {
    proxy: { '/api': process.env.SEAWORTHY_URL ?? 'http://127.0.0.1:7777' },
  },
});
