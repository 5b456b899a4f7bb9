// Starts the console: takes a token out of the address first, so that it is gone before anything else runs.
import { mount } from 'svelte';
import 'uplot/dist/uPlot.min.css';
import './app.css';
import App from './App.svelte';
import { takeTokenFromAddress } from './session.svelte';

takeTokenFromAddress();
window.addEventListener('hashchange', takeTokenFromAddress);

const target = document.getElementById('app');
if (!target) throw new Error('index.html has no #app');
mount(App, { target });
